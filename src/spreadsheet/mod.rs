//! Lists as people have them: the bytes of a CSV file or a workbook become rows of text, and rows become CSV again. Knows nothing of devices, and
//! does no input or output.
//!
//! | file | does |
//! | --- | --- |
//! | [`text`] | encodings, separators, quotes |
//! | [`workbook`] | the first sheet of an XLSX file |
//! | [`formula`] | keeps a cell from being computed by whoever opens it (A-082) |

pub mod formula;
pub mod text;
pub mod workbook;

/// A file may be this large: 8 MiB.
pub const MAX_FILE: usize = 8 * 1024 * 1024;
/// A file may have this many rows below its head.
pub const MAX_ROWS: usize = 10_000;
/// A row may have this many cells.
pub const MAX_COLUMNS: usize = 100;

/// A file's cells, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How the file was read, for people: `UTF-8, separated by ;`.
    pub format: String,
    /// All rows that have any text, the head among them.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its number in the file, as editors and spreadsheet programs count: from 1.
    pub number: u32,
    /// Its cells; a row may be shorter than others.
    pub cells: Vec<String>,
}

/// Why a file could not be read. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Over [`MAX_FILE`].
    #[error("the file is larger than 8 MiB; split it into several")]
    TooLarge,
    /// Over [`MAX_ROWS`].
    #[error("the file has more than 10,000 rows; split it into several")]
    TooManyRows,
    /// Over [`MAX_COLUMNS`].
    #[error("row {0} has more than 100 columns; remove what is not needed")]
    TooManyColumns(u32),
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Neither one encoding nor the other.
    #[error("line {0} is in another encoding than the rest of the file; save the whole file as UTF-8")]
    MixedEncodings(usize),
    /// No text at all.
    #[error("this is neither a CSV file nor an XLSX workbook; save the list as one of these")]
    NoText,
    /// It unpacks to more than the limit.
    #[error("the workbook unpacks to more than 50 MiB; save its first sheet alone, or as CSV")]
    Bomb,
    /// Not readable as a workbook.
    #[error("the workbook can't be read; is it damaged, or has it a password? Save its first sheet as CSV")]
    Workbook,
    /// An older format.
    #[error("this is an old workbook (.xls); save it as XLSX or CSV")]
    OldWorkbook,
}

/// Reads a file by what is in it, whatever its name: CSV in any usual encoding and with any usual separator, or the first sheet of a workbook.
///
/// # Errors
/// [`TableError`].
pub fn read(bytes: &[u8]) -> Result<Table, TableError> {
    if bytes.len() > MAX_FILE {
        return Err(TableError::TooLarge);
    }
    let table = if bytes.starts_with(b"PK\x03\x04") {
        workbook::read(bytes)?
    } else if bytes.starts_with(&[0xD0, 0xCF, 0x11, 0xE0]) {
        return Err(TableError::OldWorkbook);
    } else {
        text::read(bytes)?
    };
    if table.rows.is_empty() { Err(TableError::Empty) } else { Ok(table) }
}

/// Rows below a limit, none of them empty.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn push(&mut self, number: u32, mut cells: Vec<String>) -> Result<(), TableError> {
        while cells.last().is_some_and(|cell| cell.trim().is_empty()) {
            cells.pop();
        }
        if cells.len() > MAX_COLUMNS {
            return Err(TableError::TooManyColumns(number));
        }
        if cells.is_empty() {
            return Ok(());
        }
        // One more for the head.
        if self.0.len() > MAX_ROWS {
            return Err(TableError::TooManyRows);
        }
        self.0.push(Row { number, cells });
        Ok(())
    }
}

/// Rows as CSV: UTF-8 with a byte order mark (Excel needs it), separated by commas, every cell quoted, formulas neutralised.
pub fn write<'a>(rows: impl IntoIterator<Item = Vec<&'a str>>) -> String {
    let mut text = String::from('\u{FEFF}');
    for row in rows {
        for (place, cell) in row.into_iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push('"');
            text.push_str(&formula::neutralised(cell).replace('"', "\"\""));
            text.push('"');
        }
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(table: &Table) -> Vec<Vec<&str>> {
        table.rows.iter().map(|row| row.cells.iter().map(String::as_str).collect()).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let rows =
            [vec!["id", "note"], vec!["tv-01", "a \"quoted\", cell; with =1+1"], vec!["tv-02", "=cmd|' /C calc'!A0"]];
        let table = read(write(rows.clone()).as_bytes()).unwrap();
        let back: Vec<Vec<String>> =
            table.rows.iter().map(|row| row.cells.iter().map(|cell| formula::restored(cell)).collect()).collect();
        assert_eq!(back, rows);
        assert!(cells(&table)[2][1].starts_with('\''), "neutral in the file");
    }

    #[test]
    fn limits_are_held_and_named_a_082() {
        let million = "x\n".repeat(1_000_000);
        assert_eq!(read(million.as_bytes()), Err(TableError::TooManyRows));
        assert_eq!(read(&vec![b'x'; MAX_FILE + 1]), Err(TableError::TooLarge));
        assert_eq!(read(",x".repeat(101).as_bytes()), Err(TableError::TooManyColumns(1)));
        assert_eq!(read(b""), Err(TableError::Empty));
        assert_eq!(read(b"\n ; ;\n\n"), Err(TableError::Empty));
        let exactly = format!("id\n{}", "x\n".repeat(MAX_ROWS));
        assert_eq!(read(exactly.as_bytes()).unwrap().rows.len(), MAX_ROWS + 1);
        for (error, limit) in [
            (TableError::TooLarge, "8 MiB"),
            (TableError::TooManyRows, "10,000"),
            (TableError::TooManyColumns(1), "100"),
            (TableError::Bomb, "50 MiB"),
        ] {
            assert!(error.to_string().contains(limit), "{error}");
        }
        assert_eq!((MAX_FILE, MAX_ROWS, MAX_COLUMNS), (8 << 20, 10_000, 100), "as the messages say");
    }

    #[test]
    fn rubbish_is_no_table() {
        assert_eq!(read(&[0xD0, 0xCF, 0x11, 0xE0, 1, 2]), Err(TableError::OldWorkbook));
        assert_eq!(read(b"PK\x03\x04 and so on"), Err(TableError::Workbook));
        assert_eq!(read(b"\x89PNG\r\n\x1a\n\0\0\0\x01\x02"), Err(TableError::NoText));
    }
}
