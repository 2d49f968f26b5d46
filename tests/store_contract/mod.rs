//! What every storage backend must do, races included: the contract of `src/store/mod.rs`, as cases that know no backend.
//!
//! A second backend is named twice: a function in [`backends`] that opens it on a directory, and a word in the list at the end. Cases take a
//! [`Bench`], which opens the same data as often as a case wants *nodes*; [`Bench::race`] lets many tasks on two nodes do the same thing at once.
//! What only one backend can do or be asked (a tampered file, a foreign migration) is in the file of its name.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pairgate::clock::Timestamp;
use pairgate::id::{DeviceId, GrantId, OperatorId, PairingId};
use pairgate::model::audit::{Actor, Context, Record};
use pairgate::model::device::{Device, DeviceFacts, KeyAssurance};
use pairgate::model::kind::RefreshPolicy;
use pairgate::model::operator::{Reach, Role, SESSION_ABSOLUTE, SignInMethod};
use pairgate::model::pairing::Says;
use pairgate::oauth::scope::Scope;
use pairgate::secret::{Bytes32, Random, sha256};
use pairgate::store::{
    AuditQuery, ClaimOutcome, Decision, Mint, NewGrant, NewPairing, NewSession, Redemption, SecondPerson, Store,
    WindowSubject,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

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
mod sqlite;

/// How each backend is opened.
mod backends {
    use super::{Arc, Path, Store};

    pub fn sqlite(data: &Path) -> Arc<dyn Store> {
        pairgate::store::open(data).unwrap()
    }
}

/// When every case begins.
const START: Timestamp = Timestamp::from_millis(1_795_500_000_000);
/// Long enough not to matter.
const POLICY: RefreshPolicy =
    RefreshPolicy { idle: Duration::from_secs(7200), absolute: Duration::from_secs(3 * 7200) };
/// Tasks of a race.
const RIVALS: usize = 24;

/// Data of its own, and one node on it.
pub struct Bench {
    pub store: Arc<dyn Store>,
    open: fn(&Path) -> Arc<dyn Store>,
    data: tempfile::TempDir,
}

/// So many seconds after the beginning.
pub fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// A change by the command line, so many seconds after the beginning.
pub fn when(seconds: u64) -> Context {
    Context { now: at(seconds), actor: Actor::CommandLine, peer: Some(IpAddr::from([127, 0, 0, 1])) }
}

pub fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

/// 32 bytes that stand for a key, a code or a token.
pub fn bytes(name: &str) -> Bytes32 {
    sha256(&[name.as_bytes()])
}

pub fn facts(name: &str) -> DeviceFacts {
    DeviceFacts { kind: "printer".into(), site: "default".into(), name: name.into(), ..DeviceFacts::default() }
}

/// A request to pair `device` with the key of this name.
pub fn pairing_request(device: &str, key: &str) -> NewPairing {
    NewPairing {
        id: PairingId::mint(&Random::system()).unwrap(),
        device: id(device),
        jkt: bytes(key),
        jwk: format!("{{\"key\":\"{key}\"}}"),
        key_assurance: KeyAssurance::Software,
        voucher: None,
        says: Says::default(),
        commitment: bytes("commitment"),
        broker_nonce: bytes("broker nonce"),
        broker_jkt: bytes("broker key"),
        request_hash: Random::system().bytes32().unwrap(),
        expires_at: at(600),
    }
}

/// A session with this hash, by a link, of full length.
pub fn session_of(hash: &Bytes32) -> NewSession {
    let ends_at = at(0).plus(SESSION_ABSOLUTE);
    NewSession {
        hash: *hash,
        method: SignInMethod::Link,
        fresh_at: at(0),
        agent: "a browser".into(),
        ends_at,
        replaces: None,
    }
}

/// A code of this name for a device with a key.
pub fn code(device: &Device, name: &str) -> NewGrant {
    NewGrant {
        device_row: device.row,
        device: device.id.clone(),
        jkt: device.key.as_ref().map_or([0; 32], |key| key.jkt),
        device_code_hash: bytes(&format!("device code {name}")),
        user_code_hash: bytes(&format!("user code {name}")),
        scope: Scope::parse("scan.write").unwrap(),
        resource: "urn:pairgate:resource:default".into(),
        expires_at: at(300),
        codes_per_hour: 60,
        assertion: None,
    }
}

impl Bench {
    fn new(open: fn(&Path) -> Arc<dyn Store>) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self { store: open(data.path()), open, data }
    }

    /// Another node on the same data, as a second process or after a restart.
    pub fn node(&self) -> Arc<dyn Store> {
        (self.open)(self.data.path())
    }

    /// Everything so far forgotten but what was stored.
    pub fn restarted(self) -> Self {
        let Self { store, open, data } = self;
        drop(store);
        Self { store: open(data.path()), open, data }
    }

    /// Many tasks on two nodes do it at once; what each of them was told.
    pub async fn race<T, F, Done>(&self, act: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Store>, usize) -> Done,
        Done: Future<Output = T> + Send + 'static,
    {
        let (gate, other) = (Arc::new(Barrier::new(RIVALS)), self.node());
        let mut rivals = JoinSet::new();
        for index in 0..RIVALS {
            let node = if index % 2 == 0 { &self.store } else { &other };
            let (work, gate) = (act(Arc::clone(node), index), Arc::clone(&gate));
            rivals.spawn(async move {
                gate.wait().await;
                work.await
            });
        }
        rivals.join_all().await
    }

    pub async fn registered(&self, device: &str) -> Device {
        assert!(self.store.register_device(&id(device), &facts(device), &when(0)).await.unwrap());
        self.device(device).await
    }

    pub async fn device(&self, device: &str) -> Device {
        self.store.device(&id(device)).await.unwrap().unwrap()
    }

    pub async fn open_window(&self, device: &str) {
        let subject = WindowSubject::Device(id(device));
        assert!(self.store.open_window(&subject, at(900), &when(0)).await.unwrap());
    }

    /// A pairing that waits with its nonce revealed. The window must be open.
    pub async fn revealed(&self, device: &str, key: &str) -> PairingId {
        let new = pairing_request(device, key);
        self.store.request_pairing(&new, &when(1)).await.unwrap().unwrap();
        assert!(
            self.store.reveal_pairing(&new.id, &bytes("device nonce"), KeyAssurance::Software, &when(1)).await.unwrap()
        );
        new.id
    }

    /// Pairs a registered device with the key of this name.
    pub async fn pair(&self, device: &str, key: &str) -> Device {
        self.open_window(device).await;
        let pairing = self.revealed(device, key).await;
        assert!(self.store.confirm_pairing(&pairing, &when(2)).await.unwrap());
        self.device(device).await
    }

    /// Registered and paired with a key of its own name.
    pub async fn active(&self, device: &str) -> Device {
        self.registered(device).await;
        self.pair(device, device).await
    }

    pub async fn operator(&self, name: &str, role: Role) -> OperatorId {
        self.store.add_operator(name, Some(role), &when(0)).await.unwrap().unwrap()
    }

    pub async fn minted(&self, device: &Device, name: &str) -> GrantId {
        match self.store.mint_grant(&code(device, name), &when(3)).await.unwrap() {
            Mint::Minted(id) => id,
            other => panic!("not minted: {other:?}"),
        }
    }

    pub async fn claimed(&self, device: &Device, name: &str, by: OperatorId) -> GrantId {
        let grant = self.minted(device, name).await;
        let outcome = self.store.claim_grant(grant, by, Some("47"), &when(4)).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Claimed);
        grant
    }

    pub async fn approved(&self, device: &Device, name: &str, by: OperatorId) -> GrantId {
        let grant = self.claimed(device, name, by).await;
        assert!(self.store.decide_grant(grant, by, Decision::Approve, ALONE, &when(5)).await.unwrap().is_done());
        grant
    }

    /// Redeemed by its key, with a refresh token of the code's name.
    pub async fn redeemed(&self, device: &Device, name: &str, by: OperatorId) -> GrantId {
        let grant = self.approved(device, name, by).await;
        let (jkt, refresh) = (device.key.as_ref().unwrap().jkt, Some((bytes(name), POLICY)));
        assert_eq!(self.store.redeem_grant(grant, &jkt, refresh, ALONE, &when(6)).await.unwrap(), Redemption::Redeemed);
        grant
    }

    /// All records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        let query = AuditQuery { after: Some(0), limit: 1000, ..AuditQuery::default() };
        self.store.audit(&query, ALL).await.unwrap()
    }

    /// How often this was recorded.
    pub async fn count(&self, event: &str) -> usize {
        self.records().await.iter().filter(|record| record.event == event).count()
    }

    /// Exactly these events were recorded after the first `known`; how many records there are now.
    pub async fn recorded(&self, known: usize, expected: &[&str]) -> usize {
        let records = self.records().await;
        let new: Vec<&str> = records[known..].iter().map(|record| record.event.as_str()).collect();
        assert_eq!(new, expected);
        records.len()
    }
}

/// One person is enough.
pub const ALONE: SecondPerson = SecondPerson { after_pairing: false, when_new: false };

/// Whoever asks may know of all sites.
pub const ALL: &Reach = &Reach::Everywhere;

/// How many of the answers are this one.
pub fn how_many<T: PartialEq>(answers: &[T], answer: &T) -> usize {
    answers.iter().filter(|given| *given == answer).count()
}

/// No method of the contract goes untested: each is called by some case.
#[test]
fn every_method_of_the_traits_has_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract: String = std::fs::read_dir(root.join("src/store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let cases: String = std::fs::read_dir(root.join("tests/store_contract"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let methods: Vec<&str> = contract
        .lines()
        .filter_map(|line| line.trim().strip_prefix("async fn "))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    assert!(methods.len() > 40, "the traits were read: {methods:?}");
    let untested: Vec<_> = methods.iter().filter(|method| !cases.contains(&format!(".{method}("))).collect();
    assert!(untested.is_empty(), "without a case: {untested:?}");
}

/// Every case for one backend.
macro_rules! contract_of {
    ($backend:ident; $($group:ident { $($case:ident)* })*) => {
        mod $backend {
            $(mod $group {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        let bench = crate::store_contract::Bench::new(crate::store_contract::backends::$backend);
                        crate::store_contract::$group::$case(bench).await;
                    }
                )*
            })*
        }
    };
}

macro_rules! contract {
    ($($backend:ident)*) => {
        mod on {
            $(contract_of! { $backend;
                devices {
                    an_id_is_given_once_also_when_many_ask_at_once
                    devices_are_found_by_id_row_text_and_state
                    a_list_of_devices_goes_on_after_an_id
                    states_change_by_the_table_and_each_change_is_recorded
                    of_many_who_suspend_at_once_one_did
                    resuming_gives_back_what_the_device_was
                    suspending_ends_sign_ins_pairings_and_windows
                    retiring_ends_everything_and_leaves_tombstones_of_id_and_key
                    a_site_is_changed_and_recorded
                    sites_are_many_and_reach_limits_what_is_told_a_080
                    the_pinned_key_is_the_current_one
                }
                field {
                    floors_are_counted_without_retired_devices
                    a_device_is_asked_to_show_itself_and_told_once
                    an_announced_key_is_compared_in_the_transaction_that_pins_it
                    a_technicians_code_is_good_once_and_for_one_device
                    pairing_stopping_and_replacing_end_a_technicians_pass
                    replacing_ends_the_old_box_and_opens_for_the_new_one_in_one_step
                    a_stolen_device_is_stopped_once_and_stays_marked_until_it_is_let_on
                }
                bulk {
                    a_list_is_registered_whole_or_not_at_all
                    of_many_imports_of_one_list_at_once_one_is_done
                    what_is_known_is_told_as_far_as_one_may_know_a_080
                    many_are_changed_in_one_go_and_changed_back
                    windows_and_places_of_many_go_back_to_what_they_were
                    of_many_who_change_the_same_devices_at_once_one_did
                    facts_are_changed_if_they_are_still_those_that_were_seen
                    what_is_set_aside_is_taken_once_and_in_time
                }
                pairings {
                    windows_open_close_and_run_out
                    each_reason_to_refuse_a_request_has_its_name_and_stores_nothing
                    a_device_that_begins_again_makes_room_and_a_second_key_is_a_conflict
                    a_nonce_is_revealed_once_and_may_be_repeated
                    the_assurance_of_a_waiting_key_only_rises_and_goes_to_the_device
                    the_present_key_vouches_once_and_while_it_is_the_present_one
                    of_many_nonces_at_once_one_is_taken
                    wrong_digits_are_counted_also_when_they_come_at_once
                    of_many_who_confirm_at_once_one_did_and_everything_follows
                    confirming_and_declining_at_once_has_one_outcome
                    one_key_for_two_devices_is_confirmed_for_one
                    what_is_not_revealed_over_or_suspended_is_not_confirmed
                    a_new_key_replaces_the_old_one_and_ends_its_sign_ins
                    the_same_key_again_keeps_the_sign_ins
                    of_many_who_decline_at_once_one_did
                    open_pairings_are_listed_oldest_first
                }
                setup {
                    of_many_who_sign_a_version_at_once_one_did
                    a_setting_is_set_and_recorded
                }
                grants {
                    a_code_is_stored_and_found_while_it_is_pending
                    a_new_code_ends_the_former_one
                    the_hourly_budget_is_charged_and_renewed
                    no_code_for_a_key_or_a_state_that_changed_meanwhile
                    many_codes_at_once_leave_one_pending
                    a_user_code_in_use_is_a_failure_that_changes_nothing
                    an_assertion_makes_one_code_also_after_a_restart_a_030
                    the_interval_grows_to_its_cap_and_only_while_open
                    of_many_approvers_at_once_one_has_the_claim
                    a_claim_may_be_repeated_by_the_same_person_and_ends_with_the_code
                    only_the_claimant_decides_and_the_first_decision_stands
                    of_many_decisions_at_once_one_stands
                    wrong_numbers_are_counted_and_the_last_one_denies
                    wrong_numbers_at_once_are_all_counted
                    of_many_polls_at_once_one_redeems_a_035
                    nothing_is_redeemed_without_approval_key_state_and_time
                    an_approver_who_lost_the_right_lets_nobody_in_a_047
                    a_redeemed_sign_in_is_revoked_once
                    all_sign_ins_are_ended_by_one_call
                    the_sign_ins_of_one_device_are_ended_and_no_others
                    a_refresh_token_is_exchanged_once_and_its_retry_within_seconds
                    of_many_refreshes_at_once_one_rotates
                    an_old_refresh_token_ends_the_sign_in
                    refresh_tokens_die_unused_and_of_age
                    two_live_sign_ins_of_one_key_are_both_ended_a_009
                    pending_grants_are_listed_oldest_first
                }
                approvers {
                    who_paired_or_registered_a_device_is_not_enough_for_its_first_sign_in_a_079
                    the_rule_is_of_kind_or_site_holds_a_day_and_spares_the_others_a_079
                    a_key_that_changes_by_itself_hides_nobody_a_079
                    who_never_approved_a_device_is_new_to_it_once_others_have_a_101
                    of_two_approvers_at_once_one_is_first_and_nobody_is_in_a_079
                    a_first_approver_who_lost_the_right_counts_for_nothing_a_047
                    only_who_is_on_a_devices_list_opens_decides_and_counts_a_101
                    a_person_has_five_sign_ins_open_at_the_most_a_092
                    reporting_and_blocking_is_one_change_a_092
                    an_approval_is_undone_by_who_gave_it_for_a_day_and_once_a_101
                }
                overview {
                    a_series_counts_by_span_and_site
                    devices_in_need_are_suspended_or_long_unheard_of
                }
                operators {
                    a_name_is_given_once_also_when_many_ask_at_once
                    people_are_found_and_listed
                    roles_are_given_and_taken_per_site
                    of_many_who_use_a_link_at_once_one_gets_in
                    links_run_out_and_belong_to_people_who_may
                    sessions_end_idle_of_age_signed_out_and_disabled
                    of_many_who_disable_at_once_one_did
                    guesses_count_for_ten_minutes_and_nothing_resets_them_a_039
                    guesses_at_once_are_all_counted
                }
                api_tokens {
                    a_tokens_name_is_given_once_also_when_many_ask_at_once
                    tokens_are_found_by_their_hash_until_they_end
                    of_many_who_revoke_a_token_at_once_one_did
                }
                people {
                    somebody_new_is_added_once_and_takes_nobodys_name_a_048
                    roles_by_groups_are_replaced_and_given_ones_stay_a_047
                    people_are_listed_with_what_they_have
                    all_passkeys_of_a_person_are_removed
                    an_administrator_by_groups_does_not_count_as_the_last
                    of_many_who_enable_at_once_one_did
                    the_last_who_administers_everything_stays
                }
                passkeys {
                    a_passkey_is_one_persons_and_found_while_that_person_may
                    a_person_has_so_many_passkeys_and_no_more
                    a_session_that_has_ended_leaves_no_passkey_behind_a_047
                    of_many_uses_of_one_proof_at_once_one_opens_a_session
                }
                operator_keys {
                    a_key_is_one_persons_for_ever_and_found_while_that_person_may
                    a_session_that_has_ended_leaves_no_key_behind_a_047
                    a_person_has_so_many_living_keys_and_no_more
                    keys_have_no_rights_of_groups_and_go_with_the_passkeys_a_047
                    of_many_who_use_one_command_at_once_one_did_a_021
                }
                sessions {
                    a_session_is_opened_for_whoever_may_and_listed
                    a_session_takes_the_place_of_the_one_that_the_browser_had
                    signing_out_everywhere_ends_all_sessions_and_voids_approvals_a_047
                    what_a_disabled_person_approved_stays_void_when_it_is_enabled_a_047
                    roles_by_groups_count_in_sessions_of_the_organisations_sign_in_a_047
                    a_ceremony_is_taken_once_by_its_browser_for_its_purpose_in_time
                    of_many_who_take_a_ceremony_at_once_one_did
                    ceremonies_are_bounded_a_091
                }
                policies {
                    versions_hold_one_after_the_other_and_are_listed
                    of_many_who_write_on_the_same_version_one_did_a_081
                    a_version_brings_its_sites_in_the_same_transaction
                    a_second_person_confirms_and_never_the_first_a_081
                    what_waits_is_withdrawn_once_or_overtaken
                }
                leases {
                    of_many_who_take_a_free_lease_one_has_it
                    a_lease_is_renewed_by_its_holder_and_free_after_its_end
                }
                audit {
                    records_are_listed_both_ways_and_filtered
                    counts_are_since_an_instant
                    the_chain_holds_and_its_head_is_the_last_hash
                    records_of_many_at_once_make_one_chain
                    the_latest_instant_is_the_newest_records
                    of_many_first_signing_keys_at_once_one_is_kept
                    of_many_rotations_at_once_one_is_done
                    a_rotation_is_of_the_current_key_of_its_algorithm_or_nothing
                    an_emergency_drops_all_former_keys_for_ever_a_098
                    retired_keys_are_dropped_at_the_right_millisecond
                    changes_of_another_node_show_in_the_counter
                    what_was_acknowledged_is_there_after_a_restart
                }
            })*
        }
    };
}

contract! { sqlite }
