//! From the rows of a file to devices to register, or to what is wrong with each row. Pure: what is known already is given (A-082).

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::id::DeviceId;
use crate::model::audit::one_line;
use crate::model::columns::{Column, folded, kind_of, kind_words, nearest, slug};
use crate::model::device::DeviceFacts;
use crate::model::kind::Kind;
use crate::model::site::Site;
use crate::secret::{Bytes32, bytes32_from_b64u};
use crate::spreadsheet::{Row, Table, formula};

/// The head of a list is looked for in so many rows: there may be a title above it.
const HEAD_ROWS: usize = 10;

/// A device to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Its id.
    pub id: DeviceId,
    /// What is known of it.
    pub facts: DeviceFacts,
    /// The key that its maker announced.
    pub manifest_jkt: Option<Bytes32>,
    /// Its row in the file.
    pub row: u32,
    /// Was the id made from other columns?
    pub is_minted: bool,
}

/// What is wrong with a row. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowError {
    /// Number of the row in the file.
    pub row: u32,
    /// Head of the column as it stands in the file; ours if the file has none.
    pub column: String,
    /// What stands there, fit for one line.
    pub value: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// What holds for rows that say nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Defaults {
    /// Kind; empty for none.
    pub kind: String,
    /// Site; empty for none.
    pub site: String,
}

/// A site as the importer may use it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The site; only those of which the importer may know (A-080).
    pub site: Site,
    /// May devices be registered there?
    pub may_register: bool,
}

/// What is registered already.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Ids, also those of retired devices.
    pub ids: HashSet<String>,
    /// Serial numbers of devices of which the importer may know, each with the device's id.
    pub serials: HashMap<String, String>,
    /// Keys that were ever pinned or announced.
    pub keys: HashSet<Bytes32>,
}

/// What a file comes to.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// How the file was read.
    pub format: String,
    /// What is understood: the head as it stands in the file, and what it means.
    pub columns: Vec<(String, Column)>,
    /// Heads that are not.
    pub ignored: Vec<String>,
    /// Rows below the head.
    pub rows: usize,
    /// Devices to register; all of them only if there are no errors.
    pub devices: Vec<NewDevice>,
    /// What is wrong.
    pub errors: Vec<RowError>,
}

/// Everything that a check needs besides the file.
pub struct Against<'a> {
    /// Kinds.
    pub kinds: &'a [Kind],
    /// Sites.
    pub places: &'a [Place],
    /// What is registered.
    pub known: &'a Known,
    /// For rows that don't say.
    pub defaults: &'a Defaults,
    /// Why an id can't be given although it is well formed.
    pub refused: fn(&str) -> Option<&'static str>,
}

/// The columns of a file.
struct Head {
    columns: Vec<Option<Column>>,
    texts: Vec<String>,
}

/// Checks a whole file.
pub fn check(table: &Table, against: &Against<'_>) -> Checked {
    let mut checked = Checked { format: table.format.clone(), ..Checked::default() };
    let Some((place, head)) = head(&table.rows, &mut checked.errors) else { return checked };
    for (text, column) in head.texts.iter().zip(&head.columns) {
        match column {
            Some(column) => checked.columns.push((text.clone(), *column)),
            None if text.is_empty() => {}
            None => checked.ignored.push(text.clone()),
        }
    }
    let rows = &table.rows[place + 1..];
    checked.rows = rows.len();
    if rows.is_empty() {
        let problem = "there is no row below the head of the table; add one per device".into();
        checked.errors.push(RowError {
            row: table.rows[place].number,
            column: String::new(),
            value: String::new(),
            problem,
        });
    }
    if !checked.errors.is_empty() {
        return checked;
    }
    let mut check = Check {
        head: &head,
        against,
        errors: Vec::new(),
        ids: HashMap::new(),
        seen: HashMap::new(),
        minted: HashSet::new(),
    };
    // Ids that are given come first: one that is made up must not take them.
    for row in rows {
        let id = check.cell(row, Column::Id);
        if !id.is_empty() {
            check.ids.entry(id).or_insert(row.number);
        }
    }
    checked.devices = rows.iter().filter_map(|row| check.device(row)).collect();
    checked.errors = check.errors;
    checked
}

/// Finds the head: the first row in which a column is known.
fn head(rows: &[Row], errors: &mut Vec<RowError>) -> Option<(usize, Head)> {
    let known = |row: &Row| row.cells.iter().any(|cell| Column::of(cell).is_some());
    let first = rows.first().map_or(1, |row| row.number);
    let Some(place) = rows.iter().take(HEAD_ROWS).position(known) else {
        let problem = "no column is known; the first row must name them, such as id, name, kind, serial, room. The template has them all".into();
        errors.push(RowError { row: first, column: String::new(), value: String::new(), problem });
        return None;
    };
    let texts: Vec<String> =
        rows[place].cells.iter().map(|cell| one_line(cell.trim()).chars().take(60).collect()).collect();
    let columns: Vec<Option<Column>> = texts.iter().map(|text| Column::of(text)).collect();
    for (index, column) in columns.iter().enumerate() {
        let earlier = columns[..index].iter().position(|other| column.is_some() && other == column);
        if let Some(earlier) = earlier {
            let problem = format!("the columns '{}' and '{}' mean the same; leave one", texts[earlier], texts[index]);
            errors.push(RowError {
                row: rows[place].number,
                column: texts[index].clone(),
                value: String::new(),
                problem,
            });
        }
    }
    Some((place, Head { columns, texts }))
}

/// The state of a check, row after row.
struct Check<'a> {
    head: &'a Head,
    against: &'a Against<'a>,
    errors: Vec<RowError>,
    /// Ids that the file gives, with the first row of each.
    ids: HashMap<String, u32>,
    /// What must be unique besides, with the first row of each.
    seen: HashMap<(&'static str, String), u32>,
    minted: HashSet<String>,
}

impl Check<'_> {
    fn cell(&self, row: &Row, column: Column) -> String {
        let place = self.head.columns.iter().position(|found| *found == Some(column));
        let cell = place.and_then(|place| row.cells.get(place)).map_or("", |cell| cell.trim());
        formula::restored(cell)
    }

    fn wrong(&mut self, row: &Row, column: Column, problem: impl Into<String>) {
        let place = self.head.columns.iter().position(|found| *found == Some(column));
        let head = place.and_then(|place| self.head.texts.get(place)).cloned().unwrap_or_else(|| column.to_string());
        let value = one_line(&self.cell(row, column));
        let value = if value.chars().count() > 60 { value.chars().take(59).chain(['…']).collect() } else { value };
        self.errors.push(RowError { row: row.number, column: head, value, problem: problem.into() });
    }

    /// The device of a row; what is wrong with it, all of it, goes to the errors.
    fn device(&mut self, row: &Row) -> Option<NewDevice> {
        let before = self.errors.len();
        let kind = self.kind(row);
        let site = self.site(row);
        let (id, is_minted) = self.id(row, kind.as_deref())?;
        let facts = DeviceFacts {
            kind: kind.unwrap_or_default(),
            site: site.unwrap_or_default(),
            name: self.cell(row, Column::Name),
            serial: self.cell(row, Column::Serial),
            asset_tag: self.cell(row, Column::AssetTag),
            maker: self.cell(row, Column::Maker),
            model: self.cell(row, Column::Model),
            floor: self.cell(row, Column::Floor),
            room: self.cell(row, Column::Room),
            owner: self.cell(row, Column::Owner),
            note: self.cell(row, Column::Note),
        };
        let facts = match facts.checked(&id) {
            Ok(facts) => facts,
            Err(errors) => {
                for error in errors {
                    let column =
                        Column::ALL.into_iter().find(|column| column.head() == error.field).unwrap_or(Column::Note);
                    self.wrong(row, column, error.problem);
                }
                return None;
            }
        };
        self.once(row, Column::Serial, &facts.serial);
        self.once(row, Column::AssetTag, &facts.asset_tag);
        if let Some(other) = self.against.known.serials.get(&facts.serial).filter(|_| !facts.serial.is_empty()) {
            let problem =
                format!("this serial number is registered already, as {other}; leave the row out, or correct it");
            self.wrong(row, Column::Serial, problem);
        }
        let manifest_jkt = self.key(row);
        (self.errors.len() == before).then_some(NewDevice { id, facts, manifest_jkt, row: row.number, is_minted })
    }

    fn kind(&mut self, row: &Row) -> Option<String> {
        let kinds = self.against.kinds;
        let typed = self.cell(row, Column::Kind);
        let wanted = if typed.is_empty() { self.against.defaults.kind.clone() } else { typed };
        if wanted.is_empty() {
            self.wrong(row, Column::Kind, "there is no kind; fill it in, or choose one for all rows without");
            return None;
        }
        if let Some(kind) = kind_of(&wanted, kinds) {
            return Some(kind.id.clone());
        }
        let problem = match nearest(&wanted, kind_words(kinds)) {
            Some(near) => format!("this kind is unknown; did you mean {near}?"),
            None => {
                let ids: Vec<&str> = kinds.iter().map(|kind| kind.id.as_str()).collect();
                format!("this kind is unknown; it is one of {}", ids.join(", "))
            }
        };
        self.wrong(row, Column::Kind, problem);
        None
    }

    fn site(&mut self, row: &Row) -> Option<String> {
        let places = self.against.places;
        let typed = self.cell(row, Column::Site);
        let wanted = if typed.is_empty() { self.against.defaults.site.clone() } else { typed };
        let word = folded(&wanted);
        let is_meant = |place: &&Place| {
            place.site.id == wanted
                || (!word.is_empty() && (word == folded(&place.site.name) || word == folded(&place.site.id)))
        };
        // The exact id first: another site's name may look like it.
        let found = places.iter().find(|place| place.site.id == wanted).or_else(|| places.iter().find(is_meant));
        match found {
            Some(place) if place.may_register => return Some(place.site.id.clone()),
            Some(_) => {
                self.wrong(row, Column::Site, "you may not register devices at this site; ask its administrator")
            }
            None if wanted.is_empty() => {
                self.wrong(row, Column::Site, "there is no site; fill it in, or choose one for all rows without");
            }
            None => {
                let names = places.iter().flat_map(|place| [place.site.id.as_str(), place.site.name.as_str()]);
                let problem = match nearest(&wanted, names) {
                    Some(near) => format!("there is no such site; did you mean {near}?"),
                    None => "there is no such site; use the id or the name of one of your sites".into(),
                };
                self.wrong(row, Column::Site, problem);
            }
        }
        None
    }

    /// The id of a row, and whether it was made from other columns.
    fn id(&mut self, row: &Row, kind: Option<&str>) -> Option<(DeviceId, bool)> {
        let typed = self.cell(row, Column::Id);
        if typed.is_empty() {
            let (serial, name) = (self.cell(row, Column::Serial), self.cell(row, Column::Name));
            let made = match kind {
                // What is wrong with the kind is said already.
                None => return None,
                Some(kind) if !slug(&serial).is_empty() => slug(&format!("{kind} {serial}")),
                Some(_) if !slug(&name).is_empty() => slug(&name),
                Some(_) => {
                    self.wrong(
                        row,
                        Column::Id,
                        "there is neither an id nor a serial number or name to make one from; fill one in",
                    );
                    return None;
                }
            };
            return self.minted(&made).map(|id| (id, true));
        }
        let id = match DeviceId::new(&typed) {
            Ok(id) => id,
            Err(error) => {
                let made = slug(&typed);
                let hint = DeviceId::new(&made).map(|_| format!("; {made} would do")).unwrap_or_default();
                self.wrong(row, Column::Id, format!("{error}{hint}"));
                return None;
            }
        };
        if let Some(why) = (self.against.refused)(id.as_str()) {
            self.wrong(row, Column::Id, why);
        } else if self.against.known.ids.contains(id.as_str()) {
            self.wrong(row, Column::Id, "this id is taken, or was once; ids are never reused. Choose another");
        } else if let Some(first) = self.ids.get(id.as_str()).copied().filter(|first| *first != row.number) {
            self.wrong(row, Column::Id, format!("this stands in row {first} already; leave one of the two out"));
        }
        Some((id, false))
    }

    /// The first id of this beginning that nobody has.
    fn minted(&mut self, base: &str) -> Option<DeviceId> {
        let base = if base.len() < 3 { format!("device-{base}") } else { base.to_owned() };
        let is_free = |id: &str| {
            !self.against.known.ids.contains(id)
                && !self.ids.contains_key(id)
                && !self.minted.contains(id)
                && (self.against.refused)(id).is_none()
        };
        let mut numbered = std::iter::once(base.clone())
            .chain((2..).map(|number: u32| format!("{}-{number}", &base[..base.len().min(57)])));
        let id = numbered.find(|id| is_free(id))?;
        self.minted.insert(id.clone());
        DeviceId::new(&id).ok()
    }

    /// What may stand in a file once.
    fn once(&mut self, row: &Row, column: Column, value: &str) {
        if value.is_empty() {
            return;
        }
        let first = *self.seen.entry((column.head(), value.to_owned())).or_insert(row.number);
        if first != row.number {
            self.wrong(row, column, format!("this stands in row {first} already; leave one of the two out"));
        }
    }

    fn key(&mut self, row: &Row) -> Option<Bytes32> {
        let typed = self.cell(row, Column::Jkt);
        if typed.is_empty() {
            return None;
        }
        let Some(jkt) = bytes32_from_b64u(&typed) else {
            self.wrong(
                row,
                Column::Jkt,
                "this is no key thumbprint: 43 letters, digits, - and _ (RFC 7638, SHA-256, base64url)",
            );
            return None;
        };
        self.once(row, Column::Jkt, &typed);
        if self.against.known.keys.contains(&jkt) {
            self.wrong(row, Column::Jkt, "this key is another device's, or was; a key belongs to one device, for ever");
        }
        Some(jkt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::b64u;
    use crate::spreadsheet;

    fn checked(file: &str) -> Checked {
        let known = Known {
            ids: ["tv-01", "printer-sn1"].map(str::to_owned).into(),
            serials: HashMap::from([("OLD1".to_owned(), "tv-01".to_owned())]),
            keys: [[9; 32]].into(),
        };
        let place = |id: &str, name: &str, may_register| Place { site: Site::plain(id, name), may_register };
        let places =
            [place("default", "Berlin HQ", true), place("paris", "Paris", false), place("moscow", "Москва", true)];
        let against = Against {
            kinds: &Kind::built_in(),
            places: &places,
            known: &known,
            defaults: &Defaults { kind: String::new(), site: "default".into() },
            refused: |id| (id == "import").then_some("this word is taken"),
        };
        check(&spreadsheet::read(file.as_bytes()).unwrap(), &against)
    }

    fn ids(checked: &Checked) -> Vec<&str> {
        checked.devices.iter().map(|device| device.id.as_str()).collect()
    }

    #[test]
    fn a_list_as_facilities_have_it_becomes_devices() {
        let file = "Druckerliste;;;\nRaum;Seriennummer;Art;Bezeichnung;Preis;Standort\n2.14;X-77;Drucker;Büro West;99;berlin hq\n;;Fernseher;Foyer;;\n";
        let found = checked(file);
        assert_eq!(found.errors, []);
        assert_eq!(found.ignored, ["Preis"]);
        assert_eq!(found.rows, 2);
        assert_eq!(ids(&found), ["printer-x-77", "foyer"]);
        let first = &found.devices[0];
        assert_eq!((first.row, first.is_minted, first.facts.site.as_str()), (3, true, "default"));
        assert_eq!(
            (first.facts.kind.as_str(), first.facts.name.as_str(), first.facts.room.as_str()),
            ("printer", "Büro West", "2.14")
        );
    }

    #[test]
    fn a_site_is_found_by_its_name_in_any_script() {
        let found = checked("id,kind,site\ntv-02,tv,москва\ntv-03,tv,東京");
        assert_eq!(found.errors.len(), 1, "{:?}", found.errors);
        assert_eq!((found.errors[0].row, found.errors[0].column.as_str()), (3, "site"));
        assert_eq!(checked("id,kind,site\ntv-02,tv,москва").devices[0].facts.site, "moscow");
    }

    #[test]
    fn ids_that_are_made_avoid_all_others() {
        let found = checked("id,kind,serial\n,printer,SN1\n,printer,sn1.\nprinter-sn1-2,printer,\n");
        assert_eq!(ids(&found), ["printer-sn1-3", "printer-sn1-4", "printer-sn1-2"]);
        assert_eq!(ids(&checked("name,kind\nimport,tv\nx,tv")), ["import-2", "device-x"]);
    }

    #[test]
    fn each_mistake_is_told_by_row_and_column_a_082() {
        let jkt = b64u(&[9; 32]);
        let twice = b64u(&[8; 32]);
        for (file, row, column, says) in [
            ("id,kind\nLobby TV,tv".to_owned(), 2, "id", "lobby-tv would do"),
            ("id,kind\n../../etc/passwd,tv".into(), 2, "id", "etc-passwd would do"),
            ("id,kind\ntv-01,tv".into(), 2, "id", "never reused"),
            ("id,kind\nimport,tv".into(), 2, "id", "word is taken"),
            ("id,kind\ntv-02,tv\n\ntv-02,tv".into(), 4, "id", "row 2 already"),
            ("id,kind,SN\ntv-02,tv,A\ntv-03,tv,A".into(), 3, "SN", "row 2 already"),
            // Lines as old Macintosh programs end them.
            ("id,kind,SN\rtv-02,tv,A\rtv-03,tv,A".into(), 3, "SN", "row 2 already"),
            ("id,kind\rtv-02,tv\r\rtv-02,tv\r".into(), 4, "id", "row 2 already"),
            ("id,kind\r\ntv-02,tv\r\ntv-02,tv\r\n".into(), 3, "id", "row 2 already"),
            ("id,kind,Inventarnummer\ntv-02,tv,1\ntv-03,tv,1".into(), 3, "Inventarnummer", "row 2 already"),
            (format!("id,kind,jkt\ntv-02,tv,{twice}\ntv-03,tv,{twice}"), 3, "jkt", "row 2 already"),
            (format!("id,kind,jkt\ntv-02,tv,{jkt}"), 2, "jkt", "another device's"),
            ("id,kind,jkt\ntv-02,tv,abc".into(), 2, "jkt", "43 letters"),
            ("id,kind,serial\ntv-02,tv,OLD1".into(), 2, "serial", "as tv-01"),
            ("id,Art\ntv-02,Druker".into(), 2, "Art", "did you mean drucker?"),
            ("id,Art\ntv-02,Auto".into(), 2, "Art", "one of printer, tv, console"),
            ("id\ntv-02".into(), 2, "kind", "there is no kind"),
            ("id,kind,site\ntv-02,tv,Berln HQ".into(), 2, "site", "did you mean Berlin HQ?"),
            ("id,kind,site\ntv-02,tv,rome".into(), 2, "site", "no such site"),
            ("id,kind,site\ntv-02,tv,paris".into(), 2, "site", "may not register"),
            ("kind,room\ntv,1".into(), 2, "id", "to make one from"),
            ("id,kind,name\ntv-02,tv,a\u{202E}b".into(), 2, "name", "U+202E"),
            (format!("id,kind,note\ntv-02,tv,{}", "x".repeat(501)), 2, "note", "longer than 500"),
            ("id,kind,room\ntv-02,tv,\"a\nb\"".into(), 2, "room", "line ends"),
            ("a,b\n1,2".into(), 1, "", "no column is known"),
            ("id,Typ,Art\ntv-02,tv,tv".into(), 1, "Art", "mean the same"),
            ("id,kind".into(), 1, "", "no row below"),
        ] {
            let found = checked(&file);
            assert_eq!(found.errors.len(), 1, "{file}: {:?}", found.errors);
            let error = &found.errors[0];
            assert_eq!((error.row, error.column.as_str()), (row, column), "{file}: {error:?}");
            assert!(error.problem.contains(says), "{file}: {error:?}");
        }
        let all = checked("id,kind,site,name\nTV,x,y,a\u{200B}b\ntv-02,tv,,\n");
        assert_eq!(all.errors.len(), 3, "all that can be told of a row at once: {:?}", all.errors);
        assert_eq!(ids(&all), ["tv-02"]);
    }

    #[test]
    fn cells_that_would_be_computed_are_text_a_082() {
        let found = checked("id,kind,name,note\ntv-02,tv,=1+1,'+49 30\n");
        assert_eq!((found.devices[0].facts.name.as_str(), found.devices[0].facts.note.as_str()), ("=1+1", "+49 30"));
    }
}
