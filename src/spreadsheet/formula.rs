//! Cells that a spreadsheet program would compute. Kept as text in the registry; made harmless on the way out, and read back as they were.
//!
//! A cell is computed if it begins with one of [`STARTS`]. Whoever opens a file with another separator than ours has cells begin in the middle of ours,
//! so the same holds behind each separator.

/// What a computed cell begins with; the wide forms too, which some programs read as the narrow ones.
const STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

/// Puts `'` before whatever would begin a formula: programs then show it as text.
pub fn neutralised(cell: &str) -> String {
    rewrite(cell, |marks, text| {
        text.extend(std::iter::repeat_n('\'', marks + 1));
    })
}

/// Takes away what [`neutralised`] put in.
pub fn restored(cell: &str) -> String {
    rewrite(cell, |marks, text| {
        text.extend(std::iter::repeat_n('\'', marks.saturating_sub(1)));
    })
}

/// Wherever a cell could begin and then would be computed: writes the marks that stood there anew.
fn rewrite(cell: &str, mark: impl Fn(usize, &mut String)) -> String {
    let mut text = String::with_capacity(cell.len() + 1);
    let (mut letters, mut may_begin) = (cell.chars().peekable(), true);
    while let Some(letter) = letters.next() {
        if !may_begin || !(letter == '\'' || STARTS.contains(&letter)) {
            text.push(letter);
            // A quote may open the cell there.
            may_begin = matches!(letter, ',' | ';' | '\t' | '|') || (may_begin && letter == '"');
            continue;
        }
        let mut marks = 0;
        let mut next = Some(letter);
        while next == Some('\'') {
            marks += 1;
            next = letters.next_if(|letter| *letter == '\'' || STARTS.contains(letter));
        }
        match next {
            Some(start) => {
                mark(marks, &mut text);
                text.push(start);
                may_begin = start == '\t';
            }
            None => {
                text.extend(std::iter::repeat_n('\'', marks));
                may_begin = false;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formulas_become_text_and_text_stays_a_082() {
        for (cell, neutral) in [
            ("=1+1", "'=1+1"),
            ("+49 30 1234", "'+49 30 1234"),
            ("-1. OG", "'-1. OG"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t'=1"),
            ("＝1", "'＝1"),
            ("'=1", "''=1"),
            ("'quoted'", "'quoted'"),
            ("a;=1+1", "a;'=1+1"),
            ("a,\"=1\"", "a,\"'=1\""),
            ("\"=1", "\"'=1"),
            ("a|-1", "a|'-1"),
            ("2.14 - west", "2.14 - west"),
            ("Lobby, ground floor", "Lobby, ground floor"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(neutralised(cell), neutral, "{cell:?}");
            assert_eq!(restored(neutral), cell, "{cell:?}");
        }
        assert_eq!(restored("=1+1"), "=1+1", "what a person typed is kept");
    }

    proptest! {
        #[test]
        fn whatever_goes_out_comes_back(cell in "[-=+@'\",;|\ta-z ＝]{0,12}") {
            prop_assert_eq!(restored(&neutralised(&cell)), cell);
        }
    }
}
