//! What a device keeps when it is switched off: its key and what it pinned. One JSON file, readable by its owner only.
//!
//! Real firmware keeps the key in hardware; the simulator has only a file.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::device::SimulatedDevice;
use super::error::SimulatorError;
use super::key::DeviceKey;
use super::pairing::Pins;

/// The file's content.
#[derive(Serialize, Deserialize)]
pub struct Flash {
    /// Device id.
    pub id: String,
    alg: String,
    pkcs8: String,
    /// What the device pinned, once it is paired.
    pub pins: Option<Pins>,
}

impl Flash {
    /// What this device has to keep.
    pub fn of(device: &SimulatedDevice) -> Result<Self, SimulatorError> {
        Ok(Self {
            id: device.id.clone(),
            alg: device.key.alg().to_owned(),
            pkcs8: device.key.to_pkcs8_b64u()?,
            pins: device.pins.clone(),
        })
    }

    /// The key.
    pub fn key(&self) -> Result<DeviceKey, SimulatorError> {
        DeviceKey::from_pkcs8_b64u(&self.alg, &self.pkcs8)
    }

    /// Reads the file; `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, SimulatorError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(path, &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| broken(path, &error))
    }

    /// Writes the file, mode 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), SimulatorError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| broken(path, &error))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A NamedTempFile is 0600 from its first moment; without that the key could be read before a chmod.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| broken(path, &error))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| broken(path, &error))?;
        file.persist(path).map_err(|error| broken(path, &error.error))?;
        Ok(())
    }
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> SimulatorError {
    SimulatorError::KeyFile { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::wire::Wire;

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_for_its_owner_only_and_gives_the_same_key_back() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("printer.json");
        assert!(Flash::load(&path).unwrap().is_none());
        let key = DeviceKey::generate_es256().unwrap();
        let device = SimulatedDevice::new("lobby-printer-01", "http://127.0.0.1:1/", key, Wire::new().unwrap());
        Flash::of(&device).unwrap().save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Flash::load(&path).unwrap().unwrap().key().unwrap().jkt(), device.key.jkt());
    }
}
