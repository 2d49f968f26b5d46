//! What the columns of a list of devices are called, in English and in German, and what kinds of devices people write into them.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

use crate::model::kind::Kind;

/// A column that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Device id.
    Id,
    /// What people call it.
    Name,
    /// Kind.
    Kind,
    /// Serial number.
    Serial,
    /// Number on the organisation's sticker.
    AssetTag,
    /// Maker.
    Maker,
    /// Model.
    Model,
    /// Site.
    Site,
    /// Floor.
    Floor,
    /// Room.
    Room,
    /// Who answers for it.
    Owner,
    /// Anything else.
    Note,
    /// Thumbprint of the key that it will have, from its maker (RFC 7638).
    Jkt,
}

impl Column {
    /// All, in the order of the template and of the export.
    pub const ALL: [Self; 13] = [
        Self::Id,
        Self::Name,
        Self::Kind,
        Self::Serial,
        Self::AssetTag,
        Self::Maker,
        Self::Model,
        Self::Site,
        Self::Floor,
        Self::Room,
        Self::Owner,
        Self::Note,
        Self::Jkt,
    ];

    /// The head that we write.
    pub const fn head(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Kind => "kind",
            Self::Serial => "serial",
            Self::AssetTag => "asset tag",
            Self::Maker => "maker",
            Self::Model => "model",
            Self::Site => "site",
            Self::Floor => "floor",
            Self::Room => "room",
            Self::Owner => "owner",
            Self::Note => "note",
            Self::Jkt => "jkt",
        }
    }

    /// What a head means, whatever its case, spaces and punctuation.
    pub fn of(head: &str) -> Option<Self> {
        let head = folded(head);
        HEADS.iter().find(|(_, words)| words.contains(&head.as_str())).map(|(column, _)| *column)
    }
}

/// The heads that we understand, as [`folded`] makes them.
const HEADS: [(Column, &[&str]); 13] = [
    (Column::Id, &["id", "deviceid", "geraeteid", "geraetid", "kennung", "geraetekennung", "clientid", "hostname"]),
    (
        Column::Name,
        &["name", "devicename", "geraetename", "bezeichnung", "geraetebezeichnung", "displayname", "anzeigename"],
    ),
    (
        Column::Kind,
        &[
            "kind",
            "type",
            "devicetype",
            "devicekind",
            "art",
            "typ",
            "geraeteart",
            "geraetetyp",
            "kategorie",
            "category",
        ],
    ),
    (
        Column::Serial,
        &["serial", "serialnumber", "serialno", "serialnr", "seriennummer", "seriennr", "sn", "snr", "fabriknummer"],
    ),
    (
        Column::AssetTag,
        &[
            "assettag",
            "asset",
            "assetnumber",
            "assetno",
            "assetid",
            "inventorynumber",
            "inventarnummer",
            "inventarnr",
            "inventar",
            "anlagennummer",
            "anlagennr",
        ],
    ),
    (Column::Maker, &["maker", "manufacturer", "make", "vendor", "brand", "hersteller", "marke", "fabrikat"]),
    (Column::Model, &["model", "modell", "modelname", "modellname", "modelnumber", "modellnummer"]),
    (Column::Site, &["site", "location", "standort", "liegenschaft", "niederlassung"]),
    (Column::Floor, &["floor", "level", "storey", "story", "etage", "stockwerk", "stock", "geschoss", "ebene"]),
    (Column::Room, &["room", "roomnumber", "raum", "raumnummer", "raumnr", "zimmer", "zimmernummer"]),
    (
        Column::Owner,
        &[
            "owner",
            "responsible",
            "contact",
            "verantwortlich",
            "verantwortlicher",
            "verantwortliche",
            "ansprechpartner",
            "besitzer",
            "eigentuemer",
        ],
    ),
    (
        Column::Note,
        &[
            "note",
            "notes",
            "remark",
            "remarks",
            "comment",
            "comments",
            "bemerkung",
            "bemerkungen",
            "notiz",
            "notizen",
            "anmerkung",
            "kommentar",
            "hinweis",
        ],
    ),
    (
        Column::Jkt,
        &[
            "jkt",
            "keythumbprint",
            "thumbprint",
            "keyfingerprint",
            "schluesselfingerabdruck",
            "fingerabdruck",
            "schluesselkennung",
        ],
    ),
];

impl fmt::Display for Column {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.head())
    }
}

/// Letters and digits only, small, umlauts written out: `Schlüssel-Fingerabdruck` becomes `schluesselfingerabdruck`. Other scripts keep their letters: without
/// them, two names that have none of ours would be the same.
pub fn folded(text: &str) -> String {
    plain(text).chars().filter(|letter| letter.is_alphanumeric()).collect()
}

/// Small ASCII letters as far as there are any: umlauts written out, accents left away.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.nfc().flat_map(char::to_lowercase) {
        match letter {
            'ä' => plain.push_str("ae"),
            'ö' => plain.push_str("oe"),
            'ü' => plain.push_str("ue"),
            'ß' => plain.push_str("ss"),
            other => plain.extend(other.nfd().filter(|part| !matches!(u32::from(*part), 0x300..=0x36F))),
        }
    }
    plain
}

/// A text as part of a device id: `HP LaserJet, 2. OG` becomes `hp-laserjet-2-og`. Empty if nothing is left of it.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for letter in plain(text).chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(60);
    slug.trim_end_matches('-').to_owned()
}

/// What people write for the kinds that are built in.
const KINDS: [(&str, &[&str]); 3] = [
    (
        "printer",
        &[
            "printer",
            "printers",
            "drucker",
            "mfp",
            "mfd",
            "mfg",
            "laserprinter",
            "laserdrucker",
            "inkjetprinter",
            "tintenstrahldrucker",
            "copier",
            "kopierer",
            "multifunktionsdrucker",
            "multifunktionsgeraet",
            "multifunctionprinter",
            "etikettendrucker",
            "labelprinter",
            "plotter",
            "scanner",
        ],
    ),
    (
        "tv",
        &[
            "tv",
            "tvs",
            "television",
            "smarttv",
            "fernseher",
            "display",
            "screen",
            "monitor",
            "bildschirm",
            "anzeige",
            "signage",
            "digitalsignage",
            "infoscreen",
            "infodisplay",
        ],
    ),
    (
        "console",
        &[
            "console",
            "consoles",
            "konsole",
            "terminal",
            "kiosk",
            "panel",
            "bedienpanel",
            "operatorpanel",
            "bedienkonsole",
            "thinclient",
        ],
    ),
];

/// The kind that a cell means: by its id, its label, or a common word for one that is built in.
pub fn kind_of<'a>(cell: &str, kinds: &'a [Kind]) -> Option<&'a Kind> {
    let word = folded(cell);
    if word.is_empty() {
        return None;
    }
    let named =
        kinds.iter().find(|kind| cell.trim() == kind.id || word == folded(&kind.id) || word == folded(&kind.label));
    named.or_else(|| {
        let (id, _) = KINDS.iter().find(|(_, words)| words.contains(&word.as_str()))?;
        kinds.iter().find(|kind| kind.id == *id)
    })
}

/// All words for kinds, for suggestions.
pub fn kind_words(kinds: &[Kind]) -> impl Iterator<Item = &str> {
    let common =
        KINDS.iter().filter(|(id, _)| kinds.iter().any(|kind| kind.id == *id)).flat_map(|(_, words)| *words).copied();
    kinds.iter().flat_map(|kind| [kind.id.as_str(), kind.label.as_str()]).chain(common)
}

/// The nearest of some words, if any is near enough to have been meant.
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = folded(&text.chars().take(40).collect::<String>());
    let scored = words.into_iter().map(|word| (distance(&text, &folded(word)), word));
    let (distance, word) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance > 0 && distance <= (text.chars().count() / 3).max(1) && !text.is_empty()).then_some(word)
}

/// How many letters must be changed, put in, left out or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    rows[0].iter_mut().enumerate().for_each(|(column, cell)| *cell = column);
    for row in 1..=from.len() {
        rows[row][0] = row;
        for column in 1..=to.len() {
            let is_same = from[row - 1] == to[column - 1];
            let changed = rows[row - 1][column - 1] + usize::from(!is_same);
            let mut least = changed.min(rows[row - 1][column] + 1).min(rows[row][column - 1] + 1);
            if row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1] {
                least = least.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_understood_in_two_languages_however_they_are_written() {
        for (head, column) in [
            ("ID", Column::Id),
            ("Device ID", Column::Id),
            ("Geräte-ID", Column::Id),
            ("  Name ", Column::Name),
            ("Bezeichnung", Column::Name),
            ("Art", Column::Kind),
            ("Typ", Column::Kind),
            ("device_type", Column::Kind),
            ("Serial No.", Column::Serial),
            ("Serien-Nr.", Column::Serial),
            ("SN", Column::Serial),
            ("Asset Tag", Column::AssetTag),
            ("Inventarnummer", Column::AssetTag),
            ("Anlagennummer", Column::AssetTag),
            ("Hersteller", Column::Maker),
            ("Modell", Column::Model),
            ("Standort", Column::Site),
            ("Stockwerk", Column::Floor),
            ("Etage", Column::Floor),
            ("Raum-Nr.", Column::Room),
            ("Verantwortlich", Column::Owner),
            ("Bemerkung", Column::Note),
            ("Schlu\u{308}ssel-Fingerabdruck", Column::Jkt),
            ("Schluessel Fingerabdruck", Column::Jkt),
            ("JKT", Column::Jkt),
        ] {
            assert_eq!(Column::of(head), Some(column), "{head}");
        }
        for unknown in ["", "MAC", "Preis", "state", "key", "id2"] {
            assert_eq!(Column::of(unknown), None, "{unknown}");
        }
        for column in Column::ALL {
            assert_eq!(Column::of(column.head()), Some(column));
        }
        assert!(HEADS.iter().flat_map(|(_, words)| *words).all(|word| folded(word) == *word));
    }

    #[test]
    fn kinds_are_found_by_what_people_call_them() {
        let kinds = Kind::built_in();
        for (word, id) in [
            ("Drucker", "printer"),
            ("MFP", "printer"),
            ("Fernseher", "tv"),
            ("Smart TV", "tv"),
            ("Konsole", "console"),
            ("tv", "tv"),
        ] {
            assert_eq!(kind_of(word, &kinds).map(|kind| kind.id.as_str()), Some(id), "{word}");
        }
        assert!(kind_of("Fernseher", &kinds[..1]).is_none(), "a kind that was taken away has no words");
        assert!(kind_of("", &kinds).is_none() && kind_of("Kaffeemaschine", &kinds).is_none());
        assert!(KINDS.iter().flat_map(|(_, words)| *words).all(|word| folded(word) == *word));
        let in_cyrillic = [("kiosk", "Киоск"), ("fax", "Факс")].map(|(id, label)| Kind {
            id: id.into(),
            label: label.into(),
            ..kinds[0].clone()
        });
        for (word, id) in [("факс", Some("fax")), (" Киоск ", Some("kiosk")), ("-", None), ("Телевизор", None)]
        {
            assert_eq!(kind_of(word, &in_cyrillic).map(|kind| kind.id.as_str()), id, "{word}");
        }
        assert_eq!(nearest("Druker", kind_words(&kinds)), Some("drucker"));
        assert_eq!(nearest("pritner", kind_words(&kinds)), Some("printer"));
        assert_eq!(nearest("Kaffeemaschine", kind_words(&kinds)), None);
        assert_eq!(nearest("", kind_words(&kinds)), None);
    }

    #[test]
    fn slugs_are_what_ids_are_made_of() {
        for (text, expected) in [
            ("HP LaserJet, 2. OG", "hp-laserjet-2-og"),
            ("Büro Größe", "buero-groesse"),
            ("Étage", "etage"),
            ("../../etc/passwd", "etc-passwd"),
            ("プリンター", ""),
            ("--", ""),
        ] {
            assert_eq!(slug(text), expected, "{text}");
        }
        assert_eq!(slug(&"x".repeat(200)).len(), 60);
    }
}
