//! Small charts of bars, drawn here as SVG: no script, and every number also in a table that a screen reader reads.
//!
//! Colours come from the stylesheet, so that they follow the theme.

use askama::Template;

use crate::clock::Timestamp;
use crate::http::lang::filters;
use crate::http::lang::{t, tf, tn};
use crate::store::AuditBucket;

/// How many units high the tallest bar is.
const HEIGHT: u64 = 40;

/// What a bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Per {
    fn word(self) -> String {
        match self {
            Self::Hour => t("Hour"),
            Self::Day => t("Day"),
        }
    }

    fn most(self, most: u64) -> String {
        match self {
            Self::Hour => tf("most in an hour: {0}", &[&most.to_string()]),
            Self::Day => tf("most in a day: {0}", &[&most.to_string()]),
        }
    }
}

/// A bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it stands for: `14:00`.
    pub label: String,
    /// How many.
    pub value: u64,
    /// Where it stands, and how high it is, in units of the drawing.
    pub x: usize,
    /// See `x`.
    pub y: u64,
    /// See `x`.
    pub height: u64,
}

/// A chart.
#[derive(Clone, Debug, Template)]
#[template(path = "chart.html")]
pub struct Chart {
    /// Unique on its page.
    pub id: &'static str,
    /// What it shows: "Sign-ins, last 24 hours".
    pub title: String,
    /// The same in numbers: "31 in all, most in an hour: 7".
    pub description: String,
    /// What a bar stands for: "Hour".
    pub unit: String,
    /// Which colour: a class of the stylesheet.
    pub class: &'static str,
    /// The bars, from left to right.
    pub bars: Vec<Bar>,
}

impl Chart {
    /// Draws these values; the tallest bar that would fit is `top`, so that charts beside each other can be compared.
    pub fn new(
        (id, class): (&'static str, &'static str),
        title: String,
        per: Per,
        top: u64,
        values: Vec<(String, u64)>,
    ) -> Self {
        let most = values.iter().map(|(_, value)| *value).max().unwrap_or(0);
        let all: u64 = values.iter().map(|(_, value)| *value).sum();
        let bar = |(index, (label, value)): (usize, (String, u64))| {
            // What is not nothing is seen.
            let height = if value == 0 { 0 } else { (value * HEIGHT / top.max(most).max(1)).max(2) };
            Bar { label, value, x: index * 10 + 1, y: HEIGHT - height, height }
        };
        Self {
            id,
            title,
            description: format!("{}, {}", tn(all, "{0} in all", "{0} in all"), per.most(most)),
            unit: per.word(),
            class,
            bars: values.into_iter().enumerate().map(bar).collect(),
        }
    }

    /// Width of the drawing.
    fn width(&self) -> usize {
        self.bars.len() * 10
    }

    /// Labels of the first and the last bar.
    fn ends(&self) -> (&str, &str) {
        (self.bars.first().map_or("", |bar| &bar.label), self.bars.last().map_or("", |bar| &bar.label))
    }
}

/// A span of time that charts show.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When its first bar begins.
    pub since: Timestamp,
    /// Milliseconds of a bar.
    pub bucket_ms: i64,
    /// How many bars.
    pub bars: i64,
}

impl Span {
    /// So many bars of so many milliseconds, the last one with `now` in it; they begin with the hours and the days of UTC.
    pub fn until(now: Timestamp, bucket_ms: i64, bars: i64) -> Self {
        let last = now.millis() - now.millis().rem_euclid(bucket_ms);
        Self { since: Timestamp::from_millis(last - (bars - 1) * bucket_ms), bucket_ms, bars }
    }

    /// A value for each bar, also where nothing happened, with the hour or the day as its label.
    pub fn values(&self, found: &[AuditBucket], value: fn(&AuditBucket) -> u64) -> Vec<(String, u64)> {
        let bar = |index: i64| {
            let from = Timestamp::from_millis(self.since.millis() + index * self.bucket_ms);
            let exact = from.rfc3339();
            // 2026-11-24T05:00:00Z
            let label = if self.bucket_ms < 86_400_000 { &exact[11..16] } else { &exact[5..10] };
            (label.to_owned(), found.iter().find(|bucket| bucket.from == from).map_or(0, value))
        };
        (0..self.bars).map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_share_and_never_invisible() {
        let values =
            [("a", 0), ("b", 1), ("c", 100), ("d", 50)].map(|(label, value)| (label.to_owned(), value)).to_vec();
        let chart = Chart::new(("c", "good"), "T".into(), Per::Hour, 0, values.clone());
        assert_eq!(chart.bars.iter().map(|bar| bar.height).collect::<Vec<_>>(), [0, 2, 40, 20]);
        assert_eq!(chart.bars.iter().map(|bar| bar.y + bar.height).collect::<Vec<_>>(), [40; 4]);
        assert_eq!(chart.description, "151 in all, most in an hour: 100");
        assert_eq!((chart.width(), chart.ends()), (40, ("a", "d")));
        let html = chart.render().unwrap();
        assert!(html.contains("role=\"img\"") && html.contains("<title id=\"c-t\">T</title>"), "{html}");
        assert!(html.contains("<th scope=\"row\">c</th><td>100</td>"), "{html}");
        let nothing = Chart::new(("c", "good"), String::new(), Per::Day, 0, vec![("a".into(), 0)]);
        assert_eq!(nothing.bars[0].height, 0);
        let beside = Chart::new(("c", "good"), String::new(), Per::Day, 200, values);
        assert_eq!(beside.bars.iter().map(|bar| bar.height).collect::<Vec<_>>(), [0, 2, 20, 10], "beside a taller one");
    }

    #[test]
    fn spans_begin_with_hours_and_days_and_have_no_gaps() {
        let now = Timestamp::from_millis(1_795_498_812_345); // 2026-11-24 05:40:12 UTC
        let hours = Span::until(now, 3_600_000, 24);
        assert_eq!(hours.since.rfc3339(), "2026-11-23T06:00:00Z");
        let at = Timestamp::from_millis(hours.since.millis() + 23 * 3_600_000);
        let found = [AuditBucket { from: at, signed_in: 3, refused: 1 }];
        let values = hours.values(&found, |bucket| bucket.signed_in);
        assert_eq!(values.len(), 24);
        assert_eq!((values[0].clone(), values[23].clone()), (("06:00".into(), 0), ("05:00".into(), 3)));
        let days = Span::until(now, 86_400_000, 14);
        let values = days.values(&[], |bucket| bucket.refused);
        assert_eq!((values[0].0.as_str(), values[13].0.as_str(), values.len()), ("11-11", "11-24", 14));
    }
}
