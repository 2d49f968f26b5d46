//! The first sheet of an XLSX workbook. What it unpacks to is measured before it is read, and a cell far away costs nothing.

use std::io::{Cursor, Read as _};

use calamine::{DataRef, ExcelDateTime, Reader as _, Xlsx};

use crate::spreadsheet::{MAX_COLUMNS, Rows, Table, TableError};

/// A workbook may unpack to this much: 50 MiB.
const MAX_UNPACKED: u64 = 50 * 1024 * 1024;
/// It may consist of this many files.
const MAX_PARTS: usize = 1000;

/// Reads the cells of the first sheet. A merged cell is what its first one says; numbers and dates become text.
///
/// # Errors
/// [`TableError`].
pub fn read(bytes: &[u8]) -> Result<Table, TableError> {
    measure(bytes)?;
    // A damaged workbook may surprise the library that reads it.
    std::panic::catch_unwind(|| cells(bytes)).unwrap_or(Err(TableError::Workbook))
}

/// Unpacks everything once into nowhere: the sizes that an archive states are its own word.
fn measure(bytes: &[u8]) -> Result<(), TableError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|_| TableError::Workbook)?;
    if archive.len() > MAX_PARTS {
        return Err(TableError::Bomb);
    }
    let mut left = MAX_UNPACKED;
    for index in 0..archive.len() {
        let part = archive.by_index(index).map_err(|_| TableError::Workbook)?;
        let is_strings = part.name().is_ok_and(|name| name.to_lowercase().ends_with("strings.xml"));
        let mut text = Vec::new();
        part.take(left + 1).read_to_end(&mut text).map_err(|_| TableError::Workbook)?;
        left = left.checked_sub(text.len() as u64).ok_or(TableError::Bomb)?;
        if promises_more_than_it_has(&text) {
            return Err(TableError::Bomb);
        }
        // In an encoding with shifts or of two bytes the promise could be spelled so that it is not found above.
        if is_strings && text.iter().any(|byte| matches!(byte, 0 | 0x1B)) {
            return Err(TableError::Workbook);
        }
    }
    Ok(())
}

/// Does a part say that it has more strings than fit into it? The library makes room for as many as it says before it reads one: without this, a line of text takes all memory,
/// and the process with it.
fn promises_more_than_it_has(part: &[u8]) -> bool {
    const WORD: &[u8] = b"uniqueCount";
    // `<si/>`
    let most = part.len() / 5;
    let mut rest = part;
    while let Some(at) = rest.windows(WORD.len()).position(|bytes| bytes == WORD) {
        rest = &rest[at + WORD.len()..];
        let number = rest.iter().skip_while(|byte| !byte.is_ascii_digit() && **byte != b'>');
        let digits = number.take_while(|byte| byte.is_ascii_digit());
        let count = digits.fold(0_usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
        if count > most {
            return true;
        }
    }
    false
}

fn cells(bytes: &[u8]) -> Result<Table, TableError> {
    let mut workbook = Xlsx::new(Cursor::new(bytes)).map_err(|_| TableError::Workbook)?;
    let sheet = workbook.sheet_names().first().cloned().ok_or(TableError::Empty)?;
    // Cell by cell: the whole rectangle between two cells far apart would not fit into memory.
    let mut reader = workbook.worksheet_cells_reader(&sheet).map_err(|_| TableError::Workbook)?;
    let (mut rows, mut number, mut row) = (Rows::default(), 0, Vec::new());
    let mut left = MAX_UNPACKED;
    while let Some(cell) = reader.next_cell().map_err(|_| TableError::Workbook)? {
        let (at, column) = cell.get_position();
        // One long text that ten thousand cells share is ten thousand long texts here.
        left = left.checked_sub(length(cell.get_value())).ok_or(TableError::Bomb)?;
        let text = text(cell.get_value());
        if text.is_empty() {
            continue;
        }
        // No program writes rows out of order; a number that came twice would hide a double.
        if at < number {
            return Err(TableError::Workbook);
        }
        if at != number {
            rows.push(number.saturating_add(1), std::mem::take(&mut row))?;
            number = at;
        }
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        if column >= MAX_COLUMNS {
            return Err(TableError::TooManyColumns(number.saturating_add(1)));
        }
        if row.len() <= column {
            row.resize(column + 1, String::new());
        }
        row[column] = text;
    }
    rows.push(number.saturating_add(1), row)?;
    Ok(Table { format: format!("XLSX, sheet '{}'", sheet.chars().take(31).collect::<String>()), rows: rows.0 })
}

/// How many bytes a cell's text takes, before it is copied.
fn length(value: &DataRef<'_>) -> u64 {
    match value {
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.len() as u64,
        DataRef::SharedString(text) => text.len() as u64,
        _ => 0,
    }
}

fn text(value: &DataRef<'_>) -> String {
    match value {
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::Int(number) => number.to_string(),
        // 4711.0 is written 4711, as the program shows it.
        DataRef::Float(number) => number.to_string(),
        DataRef::Bool(flag) => flag.to_string(),
        DataRef::DateTime(instant) => date(instant),
        DataRef::Error(error) => error.to_string(),
        DataRef::Empty => String::new(),
    }
}

fn date(instant: &ExcelDateTime) -> String {
    if instant.is_duration() {
        return instant.as_f64().to_string();
    }
    let (year, month, day, hour, minute, second, _) = instant.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    if (hour, minute, second) == (0, 0, 0) { date } else { format!("{date} {hour:02}:{minute:02}:{second:02}") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;

    /// A workbook of one sheet with this XML between `<sheetData>` and its end, and these shared strings.
    pub(crate) fn workbook(sheet_data: &str, strings: &[&str]) -> Vec<u8> {
        let strings: String = strings.iter().map(|text| format!("<si><t>{text}</t></si>")).collect();
        let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
        let rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
        let package = "http://schemas.openxmlformats.org/package/2006";
        let parts = [
            ("[Content_Types].xml", format!("<Types xmlns=\"{package}/content-types\"/>")),
            (
                "_rels/.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{rel}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/_rels/workbook.xml.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{rel}/worksheet\" Target=\"worksheets/sheet1.xml\"/>\
                     <Relationship Id=\"r2\" Type=\"{rel}/sharedStrings\" Target=\"sharedStrings.xml\"/><Relationship Id=\"r3\" Type=\"{rel}/styles\" Target=\"styles.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/workbook.xml",
                format!(
                    "<workbook xmlns=\"{main}\" xmlns:r=\"{rel}\"><sheets><sheet name=\"Drucker\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>"
                ),
            ),
            ("xl/sharedStrings.xml", format!("<sst xmlns=\"{main}\">{strings}</sst>")),
            (
                "xl/styles.xml",
                format!(
                    "<styleSheet xmlns=\"{main}\"><cellXfs count=\"2\"><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/></cellXfs></styleSheet>"
                ),
            ),
            (
                "xl/worksheets/sheet1.xml",
                format!(
                    "<worksheet xmlns=\"{main}\"><sheetData>{sheet_data}</sheetData><mergeCells><mergeCell ref=\"B2:B3\"/></mergeCells></worksheet>"
                ),
            ),
        ];
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in parts {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn cells_of_every_kind_become_text() {
        let bytes = workbook(
            "<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c><c r=\"B1\" t=\"inlineStr\"><is><t>Inventarnummer</t></is></c></row>\
             <row r=\"3\"><c r=\"A3\"><v>4711</v></c><c r=\"B3\"><v>4711.5</v></c><c r=\"C3\" s=\"1\"><v>45000</v></c><c r=\"D3\" t=\"b\"><v>1</v></c>\
             <c r=\"E3\" t=\"str\"><f>A1&amp;B1</f><v>worked out</v></c></row>\
             <row r=\"5\"><c r=\"B5\" t=\"s\"><v>1</v></c></row>",
            &["id", "tv &amp; co"],
        );
        let table = read(&bytes).unwrap();
        assert_eq!(table.format, "XLSX, sheet 'Drucker'");
        let rows: Vec<(u32, Vec<&str>)> =
            table.rows.iter().map(|row| (row.number, row.cells.iter().map(String::as_str).collect())).collect();
        assert_eq!(rows[0], (1, vec!["id", "Inventarnummer"]));
        assert_eq!(rows[1], (3, vec!["4711", "4711.5", "2023-03-15", "true", "worked out"]));
        assert_eq!(rows[2], (5, vec!["", "tv & co"]));
    }

    #[test]
    fn a_workbook_that_promises_or_repeats_too_much_is_refused_a_082_a_091() {
        let promising = |count: &str| {
            let bytes = workbook("<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c></row>", &["id"]);
            let mut parts = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
            let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
            for index in 0..parts.len() {
                let mut text = String::new();
                let mut part = parts.by_index(index).unwrap();
                part.read_to_string(&mut text).unwrap();
                archive
                    .start_file(part.name().unwrap().into_owned(), zip::write::SimpleFileOptions::default())
                    .unwrap();
                archive.write_all(text.replace("<sst ", &format!("<sst uniqueCount{count} ")).as_bytes()).unwrap();
            }
            read(&archive.finish().unwrap().into_inner())
        };
        assert_eq!(promising("=\"1\"").unwrap().rows[0].cells, ["id"]);
        for count in ["=\"1000000000000\"", " = '01000000000000'", "=\"99999999999999999999999\"", "=\"+900000000\""] {
            assert_eq!(promising(count), Err(TableError::Bomb), "{count}");
        }
        let cells: String =
            (1..=60).map(|row| format!("<row r=\"{row}\"><c r=\"A{row}\" t=\"s\"><v>0</v></c></row>")).collect();
        assert_eq!(read(&workbook(&cells, &[&"a".repeat(1024 * 1024)])), Err(TableError::Bomb));
    }

    #[test]
    fn a_workbook_that_swells_or_sprawls_is_refused_fast_a_082() {
        let swollen = workbook(&" ".repeat(51 * 1024 * 1024), &[]);
        assert!(swollen.len() < 200_000, "small on the wire: {}", swollen.len());
        assert_eq!(read(&swollen), Err(TableError::Bomb));
        let far = workbook(
            "<row r=\"1\"><c r=\"A1\"><v>1</v></c></row><row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row>",
            &[],
        );
        assert_eq!(read(&far), Err(TableError::TooManyColumns(1_048_576)));
        let long: String =
            (1..=10_002).map(|row| format!("<row r=\"{row}\"><c r=\"A{row}\"><v>1</v></c></row>")).collect();
        assert_eq!(read(&workbook(&long, &[])), Err(TableError::TooManyRows));
        let disorder = "<row r=\"2\"><c r=\"A2\"><v>1</v></c></row><row r=\"1\"><c r=\"A1\"><v>1</v></c></row>";
        assert_eq!(read(&workbook(disorder, &[])), Err(TableError::Workbook));
        let (whole, half) = (workbook("", &[]), workbook("<row r=\"1\"><c r=\"A1\" t=\"s\"><v>99</v></c>", &[]));
        assert_eq!(read(&whole[..whole.len() / 2]), Err(TableError::Workbook), "cut off");
        assert!(
            read(&half).is_err() || read(&half).is_ok_and(|table| table.rows.is_empty()),
            "a string that is not there"
        );
    }
}
