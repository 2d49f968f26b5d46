//! CSV as spreadsheet programs write it: which encoding, which separator, which quotes.

use encoding_rs::{UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::spreadsheet::{Rows, Table, TableError};

/// Separators, the likeliest first.
const SEPARATORS: [(u8, &str); 3] = [(b',', ","), (b';', ";"), (b'\t', "tab")];

/// Reads the cells of a text file.
///
/// # Errors
/// [`TableError`]: no text, mixed encodings, or over a limit.
pub fn read(bytes: &[u8]) -> Result<Table, TableError> {
    let (text, encoding) = decoded(bytes)?;
    let (separator, declared) = separator(&text);
    let body = if declared { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator).from_reader(body.as_bytes());
    let (mut rows, mut lines) =
        (Rows::default(), Lines { text: body.as_bytes(), at: 0, line: 1 + u32::from(declared) });
    for record in reader.records() {
        // It is text already, and rows may differ in length: nothing is left that could be wrong with it.
        let record = record.map_err(|_| TableError::NoText)?;
        let line = lines.number(record.position().map_or(0, csv::Position::byte));
        rows.push(line, record.iter().map(str::to_owned).collect())?;
    }
    let name = SEPARATORS.iter().find(|(byte, _)| *byte == separator).map_or(",", |(_, name)| name);
    Ok(Table { format: format!("{encoding}, separated by {name}"), rows: rows.0 })
}

/// Counts lines as editors do; where a record begins is known to the reader only as the end of the one before.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
}

impl Lines<'_> {
    /// The line of the first record at or behind this byte.
    fn number(&mut self, byte: u64) -> u32 {
        let before = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(byte) = self.text.get(self.at).filter(|byte| self.at < before || b"\r\n".contains(byte)) {
            self.at += 1;
            // A line ends with LF, CR LF or, from old Macintosh programs, CR alone.
            let is_end = *byte == b'\n' || (*byte == b'\r' && self.text.get(self.at) != Some(&b'\n'));
            self.line = self.line.saturating_add(u32::from(is_end));
        }
        self.line
    }
}

/// The text of a file, and what its encoding is called.
fn decoded(bytes: &[u8]) -> Result<(String, &'static str), TableError> {
    if let Some(rest) = bytes.strip_prefix(b"\xEF\xBB\xBF") {
        return utf8(rest).map(|text| (text, "UTF-8"));
    }
    let wide = match bytes {
        [0xFF, 0xFE, ..] => Some(UTF_16LE),
        [0xFE, 0xFF, ..] => Some(UTF_16BE),
        // Without a mark: the head of a list is ASCII letters, so every second byte is zero.
        [first, 0, second, 0, ..] if *first != 0 && *second != 0 => Some(UTF_16LE),
        [0, first, 0, second, ..] if *first != 0 && *second != 0 => Some(UTF_16BE),
        _ => None,
    };
    if let Some(wide) = wide {
        let (text, is_broken) = wide.decode_with_bom_removal(bytes);
        return if is_broken { Err(TableError::NoText) } else { Ok((text.into_owned(), "UTF-16")) };
    }
    if bytes.contains(&0) {
        return Err(TableError::NoText);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text.to_owned(), "UTF-8")),
        Err(_) if has_utf8_letters(bytes) => Err(mixed(bytes)),
        Err(_) => Ok((WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(), "Latin-1")),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, TableError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| mixed(bytes))
}

/// Does a file that is no UTF-8 hold European letters that are? Read as Latin-1, `ü` would become `Ã¼` in every name. Others prove nothing: `é–€` in
/// Latin-1 happens to be one letter of UTF-8.
fn has_utf8_letters(bytes: &[u8]) -> bool {
    bytes.utf8_chunks().any(|chunk| chunk.valid().chars().any(|letter| ('\u{A0}'..='\u{24F}').contains(&letter)))
}

/// The first line that is not UTF-8.
fn mixed(bytes: &[u8]) -> TableError {
    let good = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    TableError::MixedEncodings(1 + bytes[..good].iter().filter(|byte| **byte == b'\n').count())
}

/// The separator, and whether the first line does nothing but name it (`sep=;`, as Excel writes).
fn separator(text: &str) -> (u8, bool) {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let named = text.lines().next().and_then(|line| line.trim_end().strip_prefix("sep="));
    if let Some((byte, _)) = SEPARATORS.iter().find(|(byte, _)| named.is_some_and(|named| named.as_bytes() == [*byte]))
    {
        return (*byte, true);
    }
    let mut counts = [0_usize; 3];
    let mut is_quoted = false;
    for byte in first.bytes() {
        is_quoted ^= byte == b'"';
        if let Some(place) = SEPARATORS.iter().position(|(separator, _)| *separator == byte && !is_quoted) {
            counts[place] += 1;
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let place = counts.iter().position(|count| *count == most).unwrap_or(0);
    (SEPARATORS[place].0, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "id;Büro;Größe\r\ntv-01;\"a;b\";\"say \"\"hi\"\"\"\r\n\r\ntv-02;é–€;\r\n";

    fn utf16(text: &str, mark: bool, is_little: bool) -> Vec<u8> {
        let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit| if is_little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn all_usual_encodings_give_the_same_rows() {
        let files = [
            ("UTF-8, separated by ;", LIST.as_bytes().to_vec()),
            ("UTF-8, separated by ;", format!("\u{FEFF}{LIST}").into_bytes()),
            ("UTF-16, separated by ;", utf16(LIST, true, true)),
            ("UTF-16, separated by ;", utf16(LIST, true, false)),
            ("UTF-16, separated by ;", utf16(LIST, false, true)),
            ("UTF-16, separated by ;", utf16(LIST, false, false)),
            ("Latin-1, separated by ;", WINDOWS_1252.encode(LIST).0.into_owned()),
        ];
        for (format, bytes) in files {
            let table = read(&bytes).unwrap();
            assert_eq!(table.format, format);
            let rows: Vec<(u32, Vec<&str>)> =
                table.rows.iter().map(|row| (row.number, row.cells.iter().map(String::as_str).collect())).collect();
            let expected =
                [(1, vec!["id", "Büro", "Größe"]), (2, vec!["tv-01", "a;b", "say \"hi\""]), (4, vec!["tv-02", "é–€"])];
            assert_eq!(rows, expected, "{format}");
        }
    }

    #[test]
    fn separators_are_found_outside_of_quotes_and_where_they_are_named() {
        for (text, separator, first) in [
            ("a,b,c", b',', "a"),
            ("a;b,c;d", b';', "a"),
            ("a\tb\tc,d", b'\t', "a"),
            ("\"a;b;c\",d", b',', "a;b;c"),
            ("only", b',', "only"),
            ("\n\na;b", b';', "a"),
            ("sep=;\na,b", b';', "a,b"),
        ] {
            assert_eq!(super::separator(text).0, separator, "{text:?}");
            assert_eq!(read(text.as_bytes()).unwrap().rows[0].cells[0], first, "{text:?}");
        }
        assert_eq!(read(b"sep=;\r\nid\r\ntv-01").unwrap().rows[1].number, 3, "counted as editors count");
    }

    #[test]
    fn two_encodings_in_one_file_are_named_by_line_a_082() {
        let mut bytes = "id,name\ntv-01,Büro\n".as_bytes().to_vec();
        bytes.extend(b"tv-02,B\xFCro\n");
        assert_eq!(read(&bytes), Err(TableError::MixedEncodings(3)));
        assert_eq!(read(b"\xEF\xBB\xBFid\nB\xFCro"), Err(TableError::MixedEncodings(2)));
        assert_eq!(read(&[0xFF, 0xFE, b'a', 0, 0x00, 0xD8]), Err(TableError::NoText), "half a letter");
        assert_eq!(read(b"a\0b"), Err(TableError::NoText));
    }
}
