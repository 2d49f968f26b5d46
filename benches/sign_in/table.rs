//! The table.

/// Rows of text, aligned when printed.
#[derive(Default)]
pub struct Table(Vec<[String; 6]>);

const HEAD: [&str; 6] = ["FIGURE", "PRODUCT", "CONTROL", "RATIO", "AIM", "VERDICT"];

impl Table {
    /// CPU time per request, beside the control's.
    pub fn ratio(&mut self, figure: &str, product: &[f64], control: &[f64], aim: Option<f64>) {
        let (product, control) = (median(product), median(control));
        let ratio = product / control;
        self.row(figure, micros(product), micros(control), format!("{ratio:.2}"), ratio, aim.map(|aim| (aim, "")));
    }

    /// CPU time per request in one case, as a multiple of another case's.
    pub fn growth(&mut self, figure: &str, large: &[f64], small: &[f64], aim: f64) {
        let ratio = median(large) / median(small);
        self.row(figure, String::new(), String::new(), format!("{ratio:.2}"), ratio, Some((aim, "")));
    }

    /// A figure that has no control.
    pub fn plain(&mut self, figure: &str, values: &[f64], unit: &str, aim: Option<f64>) {
        let value = median(values);
        self.row(figure, format!("{value:.1} {unit}"), String::new(), String::new(), value, aim.map(|aim| (aim, unit)));
    }

    fn row(
        &mut self,
        figure: &str,
        product: String,
        control: String,
        ratio: String,
        value: f64,
        aim: Option<(f64, &str)>,
    ) {
        // Not measured this time.
        if value.is_nan() {
            return;
        }
        let verdict = match aim {
            Some((aim, _)) if value <= aim => "met",
            Some(_) => "missed",
            None => "",
        };
        let aim = aim.map_or_else(String::new, |(aim, unit)| format!("≤ {aim} {unit}").trim().to_owned());
        self.0.push([figure.to_owned(), product, control, ratio, aim, verdict.to_owned()]);
    }

    /// Prints it.
    pub fn print(&self) {
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            std::iter::once(&head).chain(&self.0).map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        println!();
        for row in std::iter::once(&head).chain(&self.0) {
            let cells: Vec<String> = (0..6)
                .map(|column| {
                    let cell = &row[column];
                    let fill = " ".repeat(widths[column] - cell.chars().count());
                    // Words to the left, numbers to the right.
                    if matches!(column, 0 | 5) { format!("{cell}{fill}") } else { format!("{fill}{cell}") }
                })
                .collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}

fn micros(value: f64) -> String {
    format!("{value:.0} µs")
}

/// The middle value; of an even number of values the upper one of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
