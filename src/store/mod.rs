//! Where everything is kept: the traits, and the contract that each backend fulfils (`tests/store_contract/` holds them to it).
//!
//! The contract, for every mutating method:
//! 1. It is **one transaction**, durable before it returns. What it answered is never lost, also if the process is killed right after.
//! 2. It is guarded by the expected state in the same statement that changes it (`WHERE … AND state = …`). Losing a race is an ordinary answer, not an error.
//! 3. It writes its audit record **in the same transaction**; there is no change without a record. Only `slow_down`, `reveal_pairing`,
//!    `touch_session`, `touch_api_token`, `touch_operator_key`, `use_command`, `set_aside`, `take_aside`, the two for ceremonies and the two for leases
//!    write none: they move a protocol on and decide nothing. What was refused has a record where somebody should see it: a second
//!    approver, a spent link, a foreign key (`claim_grant`, `use_link`, `revoke_grant`, `redeem_grant`); every other refusal leaves no trace here.
//! 4. `StoreError` means that nothing was changed. The caller answers 503; it never guesses.
//!
//! Reads see every change that was acknowledged before they began.

use std::path::Path;
use std::sync::Arc;

mod api_tokens;
mod approvers;
mod audit;
mod bulk;
mod devices;
mod field;
mod grants;
mod leases;
mod operator_keys;
mod operators;
mod overview;
mod pairings;
mod passkeys;
mod people;
mod policies;
mod sessions;
mod setup;
pub mod sqlite;

pub use api_tokens::*;
pub use approvers::*;
pub use audit::*;
pub use bulk::*;
pub use devices::*;
pub use field::*;
pub use grants::*;
pub use leases::*;
pub use operator_keys::*;
pub use operators::*;
pub use overview::*;
pub use pairings::*;
pub use passkeys::*;
pub use people::*;
pub use policies::*;
pub use sessions::*;
pub use setup::*;

/// The store could not do it; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Too much is waiting to be written.
    #[error("the database is overloaded")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Failed(String),
}

/// Answer of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

macro_rules! store {
    ($($part:ident)+) => {
        /// All that a backend does.
        pub trait Store: $($part +)+ {}
        impl<S: $($part +)+> Store for S {}
    };
}

store! {
    DeviceStore
    BulkStore
    FieldStore
    PairingStore
    GrantStore
    ApproverStore
    OperatorStore
    PeopleStore
    SessionStore
    PasskeyStore
    OperatorKeyStore
    AuditStore
    OverviewStore
    SetupStore
    PolicyStore
    ApiTokenStore
    LeaseStore
}

/// Opens the store in a data directory, and brings its tables up to date.
///
/// # Errors
/// If it can't be opened, or its migrations are not those of this program.
pub fn open(data: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(sqlite::SqliteStore::open(&data.join("pairgate.db"))?))
}
