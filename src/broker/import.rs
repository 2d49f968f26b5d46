//! Lists of devices, in and out: the dry run, the import (all or nothing), the export.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::broker::people::Session;
use crate::broker::registry::refused_id;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::model::columns::Column;
use crate::model::device::Device;
use crate::model::import::{Against, Checked, Defaults, Place, RowError, check};
use crate::model::operator::Role;
use crate::secret::b64u;
use crate::spreadsheet;
use crate::store::{DeviceQuery, StoreError};
use std::time::Duration;

/// A file that was checked waits this long for the person to say yes.
const KEPT: Duration = Duration::from_secs(30 * 60);
/// What is between check and import, in the store.
const PURPOSE: &str = "import";

/// A file between check and import.
#[derive(Serialize, Deserialize)]
struct Kept {
    file: String,
    defaults: Defaults,
}

impl Broker {
    /// The dry run: what a file comes to, and what is wrong with it, row by row. Nothing is registered.
    ///
    /// # Errors
    /// If the caller may register nowhere, or the file can't be read at all; what is wrong with rows is in the answer.
    pub async fn check_import(
        &self,
        caller: &Caller,
        file: Vec<u8>,
        defaults: &Defaults,
    ) -> Result<Checked, UseCaseError> {
        caller.must(Role::may_pair)?;
        let reach = caller.reach();
        let known = self.store.known_devices(&reach).await?;
        let may_register = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_pair);
        let sites = self.store.sites(&reach).await?;
        let places: Vec<Place> =
            sites.into_iter().map(|site| Place { may_register: may_register(&site.id), site }).collect();
        let (kinds, defaults) = (
            self.kinds().iter().map(|kind| crate::model::kind::Kind::clone(kind)).collect::<Vec<_>>(),
            defaults.clone(),
        );
        // Ten thousand rows take a moment, which others must not wait for.
        let work = tokio::task::spawn_blocking(move || {
            let table = spreadsheet::read(&file)?;
            let against =
                Against { kinds: &kinds, places: &places, known: &known, defaults: &defaults, refused: refused_id };
            Ok::<_, spreadsheet::TableError>(check(&table, &against))
        });
        let checked = work.await.map_err(|_| UseCaseError::refused(spreadsheet::TableError::NoText.to_string()))?;
        checked.map_err(|error| UseCaseError::refused(error.to_string()))
    }

    /// Registers all devices of a file, or none: then the answer says what is wrong. All start without a key.
    ///
    /// # Errors
    /// As [`Broker::check_import`].
    pub async fn import_devices(
        &self,
        caller: &Caller,
        file: Vec<u8>,
        defaults: &Defaults,
    ) -> Result<Checked, UseCaseError> {
        let mut checked = self.check_import(caller, file, defaults).await?;
        if !checked.errors.is_empty() {
            return Ok(checked);
        }
        let taken = self.store.register_devices(checked.devices.clone(), &self.context(caller)).await?;
        for device in taken.into_iter().filter_map(|place| checked.devices.get(place)) {
            checked.errors.push(RowError {
                row: device.row,
                column: Column::Id.to_string(),
                value: device.id.to_string(),
                problem: "somebody registered this device a moment ago; check the file again".into(),
            });
        }
        if checked.errors.is_empty() {
            self.wake.pages();
        }
        Ok(checked)
    }

    /// Keeps a file that was checked for the second step of this session, in place of an earlier one; by what it is asked for again.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn keep_import(&self, session: &Session, file: &[u8], defaults: &Defaults) -> Result<String, StoreError> {
        let kept = Kept { file: STANDARD.encode(file), defaults: defaults.clone() };
        self.set_aside(PURPOSE, session, &kept, KEPT).await
    }

    /// Takes the file that was kept, if it is the one that the person saw checked.
    ///
    /// # Errors
    /// If it is another one, or too old.
    pub async fn take_import(&self, session: &Session, shown: &str) -> Result<(Vec<u8>, Defaults), UseCaseError> {
        let kept = self.take_aside::<Kept>(PURPOSE, session, shown).await?;
        let read = kept.and_then(|kept| STANDARD.decode(&kept.file).ok().map(|file| (file, kept.defaults)));
        read.ok_or_else(|| {
            UseCaseError::refused(
                "this file was checked more than 30 minutes ago, or another one since; choose it again",
            )
        })
    }

    /// All devices that match, as CSV with the columns of an import and what Pairgate knows besides.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn export_devices(&self, caller: &Caller, query: &DeviceQuery) -> Result<String, StoreError> {
        let everything = DeviceQuery { offset: 0, limit: u32::MAX, ..query.clone() };
        let (devices, _) = self.devices(caller, &everything).await?;
        Ok(csv_of(&devices))
    }

    /// An empty list with all columns, and one device as an example.
    pub fn import_template(&self) -> String {
        let heads = Column::ALL.map(Column::head).to_vec();
        let example = [
            "lobby-printer-01",
            "Lobby printer, ground floor",
            "printer",
            "VNB3X12345",
            "4711",
            "HP",
            "LaserJet M480f",
            "default",
            "Ground floor",
            "EG-01",
            "Facilities",
            "beside the lift",
            "",
        ];
        spreadsheet::write([heads, example.to_vec()])
    }
}

/// Columns that an import does not read: they tell what became of a device.
const MORE: [&str; 4] = ["state", "key", "paired", "last seen"];

fn csv_of(devices: &[Device]) -> String {
    let imported = Column::ALL.into_iter().filter(|column| *column != Column::Jkt);
    let heads: Vec<&str> = imported.map(Column::head).chain(MORE).collect();
    let rows: Vec<[String; 4]> = devices
        .iter()
        .map(|device| {
            let key = device.key.as_ref();
            [
                device.state.as_str().to_owned(),
                key.map(|key| b64u(&key.jkt)).unwrap_or_default(),
                key.map(|key| key.paired_at.rfc3339()).unwrap_or_default(),
                device.seen_at.map(|seen_at| seen_at.rfc3339()).unwrap_or_default(),
            ]
        })
        .collect();
    let lines = devices.iter().zip(&rows).map(|(device, more)| {
        let facts = &device.facts;
        let mut line = vec![
            device.id.as_str(),
            &facts.name,
            &facts.kind,
            &facts.serial,
            &facts.asset_tag,
            &facts.maker,
            &facts.model,
            &facts.site,
            &facts.floor,
            &facts.room,
            &facts.owner,
            &facts.note,
        ];
        line.extend(more.iter().map(String::as_str));
        line
    });
    spreadsheet::write(std::iter::once(heads).chain(lines))
}
