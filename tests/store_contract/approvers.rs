//! Who may approve what, and when two must: every case for every backend.

use std::time::Duration;

use pairgate::id::{GrantId, OperatorId};
use pairgate::model::audit::{Actor, Context};
use pairgate::model::device::Device;
use pairgate::model::grant::{GrantState, MAX_OPEN_CLAIMS, WhySecond};
use pairgate::model::operator::{EVERYWHERE, Role};
use pairgate::model::site::Site;
use pairgate::store::{ClaimOutcome, Decision, DecisionOutcome, Redemption, SecondPerson, SiteChange, WindowSubject};

use super::{ALONE, Bench, POLICY, at, bytes, code, facts, how_many, id, pairing_request, when};

const AFTER_PAIRING: SecondPerson = SecondPerson { after_pairing: true, when_new: false };
const WHEN_NEW: SecondPerson = SecondPerson { after_pairing: false, when_new: true };
const DAY: u64 = 86_400;

fn by(name: &str, seconds: u64) -> Context {
    Context { actor: Actor::Operator(name.into()), ..when(seconds) }
}

impl Bench {
    /// Registered by one actor and paired by another.
    async fn paired_by(&self, device: &str, registrar: Context, pairer: Context) -> Device {
        assert!(self.store.register_device(&id(device), &facts(device), &registrar).await.unwrap());
        self.open_window(device).await;
        let pairing = self.revealed(device, device).await;
        assert!(self.store.confirm_pairing(&pairing, &pairer).await.unwrap());
        self.device(device).await
    }

    async fn claim(&self, grant: GrantId, person: OperatorId, seconds: u64) -> ClaimOutcome {
        self.store.claim_grant(grant, person, Some("47"), &when(seconds)).await.unwrap()
    }

    /// Opens and approves.
    async fn approve(&self, grant: GrantId, person: OperatorId, policy: SecondPerson) -> DecisionOutcome {
        assert_eq!(self.claim(grant, person, 5).await, ClaimOutcome::Claimed);
        self.store.decide_grant(grant, person, Decision::Approve, policy, &when(6)).await.unwrap()
    }

    async fn redeem(&self, device: &Device, grant: GrantId, policy: SecondPerson) -> Redemption {
        let jkt = device.key.as_ref().unwrap().jkt;
        let refresh = Some((bytes(&format!("refresh {grant}")), POLICY));
        self.store.redeem_grant(grant, &jkt, refresh, policy, &when(7)).await.unwrap()
    }

    async fn state(&self, grant: GrantId) -> GrantState {
        self.store.grant(grant).await.unwrap().unwrap().state
    }
}

pub async fn who_paired_or_registered_a_device_is_not_enough_for_its_first_sign_in_a_079(bench: Bench) {
    let dana = bench.operator("dana", Role::Admin).await;
    let sam = bench.operator("sam", Role::Approver).await;
    let technician = Context { actor: Actor::Technician("dana".into()), ..when(2) };
    let rows = [
        ("paired", by("sam", 0), by("dana", 2)),
        ("registered", by("dana", 0), by("sam", 2)),
        ("made the technician's code", by("sam", 0), technician),
    ];
    for (index, (what, registrar, pairer)) in rows.into_iter().enumerate() {
        let name = format!("printer-{index}");
        let device = bench.paired_by(&name, registrar, pairer).await;
        let grant = bench.minted(&device, &name).await;
        let first = bench.approve(grant, dana, AFTER_PAIRING).await;
        assert_eq!(first, DecisionOutcome::First(WhySecond::PairedIt), "{what}");
        assert_eq!(bench.state(grant).await, GrantState::Pending);
        let stored = bench.store.grant(grant).await.unwrap().unwrap();
        assert_eq!((stored.claim, stored.first.map(|first| first.by)), (None, Some(dana)));
        assert_eq!(bench.redeem(&device, grant, AFTER_PAIRING).await, Redemption::Lost, "{what}: by one alone");
        assert_eq!(bench.claim(grant, dana, 5).await, ClaimOutcome::ApprovedFirst, "{what}: the same person again");
        assert_eq!(bench.approve(grant, sam, AFTER_PAIRING).await, DecisionOutcome::Done, "{what}");
        assert_eq!(bench.store.approved_by(grant).await.unwrap(), ["dana", "sam"]);
        assert_eq!(bench.redeem(&device, grant, AFTER_PAIRING).await, Redemption::Redeemed);
        let second = bench.minted(&device, &format!("{name} again")).await;
        assert_eq!(bench.approve(second, dana, AFTER_PAIRING).await, DecisionOutcome::Done, "{what}: it has signed in");
    }
}

pub async fn the_rule_is_of_kind_or_site_holds_a_day_and_spares_the_others_a_079(bench: Bench) {
    let dana = bench.operator("dana", Role::Admin).await;
    let sam = bench.operator("sam", Role::Approver).await;
    let device = bench.paired_by("printer-1", by("dana", 0), by("dana", 2)).await;
    let grant = bench.minted(&device, "printer-1").await;
    let why = |person, policy, seconds| {
        let store = &bench.store;
        async move { store.why_second(grant, person, policy, at(seconds)).await.unwrap() }
    };
    assert_eq!(why(dana, ALONE, 5).await, None, "off by default");
    assert_eq!(why(dana, AFTER_PAIRING, 5).await, Some(WhySecond::PairedIt));
    assert_eq!(why(sam, AFTER_PAIRING, 5).await, None, "had no part in it");
    assert_eq!(why(dana, AFTER_PAIRING, 2 + DAY - 1).await, Some(WhySecond::PairedIt));
    assert_eq!(why(dana, AFTER_PAIRING, 2 + DAY).await, None, "others had a day to look");
    let site = Site { two_persons: true, ..Site::plain("default", "HQ") };
    let plain = bench.store.site("default").await.unwrap().unwrap();
    assert_eq!(bench.store.set_site(&plain, &site, &when(4)).await.unwrap(), SiteChange::Changed);
    assert_eq!(why(dana, ALONE, 5).await, Some(WhySecond::PairedIt), "as the site wants it");
    // What was approved by one before the rule came is not let in by it.
    let early = bench.paired_by("printer-2", by("dana", 0), by("dana", 2)).await;
    let relaxed = Site::plain("default", "HQ");
    assert_eq!(bench.store.set_site(&site, &relaxed, &when(4)).await.unwrap(), SiteChange::Changed);
    let approved = bench.minted(&early, "printer-2").await;
    assert_eq!(bench.approve(approved, dana, ALONE).await, DecisionOutcome::Done);
    assert_eq!(bench.store.set_site(&relaxed, &site, &when(6)).await.unwrap(), SiteChange::Changed);
    assert_eq!(bench.redeem(&early, approved, ALONE).await, Redemption::ApproverLost);
    assert_eq!(bench.state(approved).await, GrantState::Denied);
}

pub async fn a_key_that_changes_by_itself_hides_nobody_a_079(bench: Bench) {
    let dana = bench.operator("dana", Role::Admin).await;
    bench.paired_by("printer-1", when(0), by("dana", 2)).await;
    bench.open_window("printer-1").await;
    let mut next = pairing_request("printer-1", "the next key");
    next.id = pairgate::id::PairingId::mint(&pairgate::secret::Random::system()).unwrap();
    bench.store.request_pairing(&next, &when(3)).await.unwrap().unwrap();
    let assurance = pairgate::model::device::KeyAssurance::Software;
    assert!(bench.store.reveal_pairing(&next.id, &bytes("nonce"), assurance, &when(3)).await.unwrap());
    let broker = Context { actor: Actor::Broker, ..when(3) };
    assert!(bench.store.confirm_pairing(&next.id, &broker).await.unwrap());
    let device = bench.device("printer-1").await;
    assert_eq!(device.key.as_ref().unwrap().paired_by, "broker");
    let grant = bench.minted(&device, "code").await;
    let why = bench.store.why_second(grant, dana, AFTER_PAIRING, at(5)).await.unwrap();
    assert_eq!(why, Some(WhySecond::PairedIt));
}

pub async fn who_never_approved_a_device_is_new_to_it_once_others_have_a_101(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let sam = bench.operator("sam", Role::Approver).await;
    let device = bench.active("printer-1").await;
    let first = bench.minted(&device, "first").await;
    assert_eq!(bench.approve(first, dana, WHEN_NEW).await, DecisionOutcome::Done, "nobody else has");
    assert_eq!(bench.redeem(&device, first, WHEN_NEW).await, Redemption::Redeemed);
    let second = bench.minted(&device, "second").await;
    assert_eq!(bench.approve(second, sam, ALONE).await, DecisionOutcome::Done, "off by default");
    assert_eq!(bench.redeem(&device, second, WHEN_NEW).await, Redemption::ApproverLost, "and looked at again");
    let third = bench.minted(&device, "third").await;
    assert_eq!(bench.approve(third, sam, WHEN_NEW).await, DecisionOutcome::First(WhySecond::NewToIt));
    assert_eq!(bench.approve(third, dana, WHEN_NEW).await, DecisionOutcome::Done);
    assert_eq!(bench.redeem(&device, third, WHEN_NEW).await, Redemption::Redeemed);
    let fourth = bench.minted(&device, "fourth").await;
    assert_eq!(bench.approve(fourth, sam, WHEN_NEW).await, DecisionOutcome::Done, "was there before, as one of two");
}

pub async fn of_two_approvers_at_once_one_is_first_and_nobody_is_in_a_079(bench: Bench) {
    let device = bench.paired_by("printer-1", by("dana", 0), by("dana", 2)).await;
    let dana = bench.operator("dana", Role::Admin).await;
    let grant = bench.minted(&device, "code").await;
    assert_eq!(bench.claim(grant, dana, 5).await, ClaimOutcome::Claimed);
    let told = bench
        .race(|store, _| async move {
            store.decide_grant(grant, dana, Decision::Approve, AFTER_PAIRING, &when(6)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&told, &DecisionOutcome::First(WhySecond::PairedIt)), 1, "pressed twice is pressed once");
    assert_eq!(how_many(&told, &DecisionOutcome::Over), told.len() - 1);
    assert_eq!(bench.count("grant.first_approved").await, 1);
    let mut seconds = Vec::new();
    for number in 0..super::RIVALS {
        seconds.push(bench.operator(&format!("second-{number}"), Role::Approver).await);
    }
    let people = seconds.clone();
    let told = bench
        .race(move |store, index| {
            let person = people[index];
            async move {
                if store.claim_grant(grant, person, Some("11"), &when(7)).await.unwrap() != ClaimOutcome::Claimed {
                    return DecisionOutcome::Over;
                }
                store.decide_grant(grant, person, Decision::Approve, AFTER_PAIRING, &when(7)).await.unwrap()
            }
        })
        .await;
    assert_eq!(how_many(&told, &DecisionOutcome::Done), 1, "one second person");
    assert_eq!(bench.count("grant.approved").await, 1);
    let after = bench.store.decide_grant(grant, seconds[0], Decision::Approve, AFTER_PAIRING, &when(8)).await.unwrap();
    assert_eq!(after, DecisionOutcome::Over);
    assert_eq!(bench.redeem(&device, grant, AFTER_PAIRING).await, Redemption::Redeemed);
}

pub async fn a_first_approver_who_lost_the_right_counts_for_nothing_a_047(bench: Bench) {
    bench.operator("root", Role::Admin).await;
    let dana = bench.operator("dana", Role::Admin).await;
    let sam = bench.operator("sam", Role::Approver).await;
    // Before the second approves: without a role, off the list, disabled.
    for (index, loss) in ["role", "list", "disabled"].into_iter().enumerate() {
        let name = format!("printer-{index}");
        bench.store.set_role("dana", EVERYWHERE, Some(Role::Admin), &when(0)).await.unwrap();
        let device = bench.paired_by(&name, by("dana", 0), by("dana", 2)).await;
        let grant = bench.minted(&device, &name).await;
        assert_eq!(bench.approve(grant, dana, AFTER_PAIRING).await, DecisionOutcome::First(WhySecond::PairedIt));
        let is_lost = match loss {
            "role" => bench.store.set_role("dana", EVERYWHERE, None, &when(6)).await,
            "list" => bench.store.set_device_approver(&id(&name), "sam", true, &when(6)).await,
            _ => bench.store.disable_operator("dana", &when(6)).await,
        };
        assert!(is_lost.unwrap());
        assert_eq!(bench.approve(grant, sam, AFTER_PAIRING).await, DecisionOutcome::FirstLost, "{loss}");
        assert_eq!(bench.state(grant).await, GrantState::Denied);
    }
    let eve = bench.operator("eve", Role::Admin).await;
    // After it: nobody is let in either, whichever of the two it was.
    for (index, lost) in ["eve", "sam"].into_iter().enumerate() {
        let name = format!("tv-{index}");
        let device = bench.paired_by(&name, by("eve", 0), by("eve", 2)).await;
        let grant = bench.minted(&device, &name).await;
        bench.approve(grant, eve, AFTER_PAIRING).await;
        assert_eq!(bench.approve(grant, sam, AFTER_PAIRING).await, DecisionOutcome::Done);
        bench.store.set_role(lost, EVERYWHERE, None, &when(6)).await.unwrap();
        assert_eq!(bench.redeem(&device, grant, AFTER_PAIRING).await, Redemption::ApproverLost, "{lost}");
        bench.store.set_role(lost, EVERYWHERE, Some(Role::Admin), &when(6)).await.unwrap();
    }
}

pub async fn only_who_is_on_a_devices_list_opens_decides_and_counts_a_101(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let sam = bench.operator("sam", Role::Admin).await;
    let device = bench.active("printer-1").await;
    let store = &bench.store;
    assert!(store.is_device_approver(device.row, sam).await.unwrap(), "without a list, everybody");
    let known = bench.records().await.len();
    assert!(store.set_device_approver(&id("printer-1"), "dana", true, &when(3)).await.unwrap());
    assert!(!store.set_device_approver(&id("printer-1"), "dana", true, &when(3)).await.unwrap(), "once");
    assert!(!store.set_device_approver(&id("printer-1"), "nobody", true, &when(3)).await.unwrap());
    assert!(!store.set_device_approver(&id("printer-9"), "dana", true, &when(3)).await.unwrap());
    let known = bench.recorded(known, &["approver.added"]).await;
    assert_eq!(store.device_approvers(&id("printer-1")).await.unwrap(), ["dana"]);
    assert!(store.is_device_approver(device.row, dana).await.unwrap());
    assert!(!store.is_device_approver(device.row, sam).await.unwrap(), "also no administrator");
    let grant = bench.minted(&device, "code").await;
    assert_eq!(bench.claim(grant, sam, 4).await, ClaimOutcome::NotListed);
    assert_eq!(bench.claim(grant, dana, 4).await, ClaimOutcome::Claimed);
    let known = bench.recorded(known, &["code.issued", "grant.not_listed", "grant.claimed"]).await;
    // Taken off the list after opening, and after approving.
    assert!(store.set_device_approver(&id("printer-1"), "sam", true, &when(4)).await.unwrap());
    assert!(store.set_device_approver(&id("printer-1"), "dana", false, &when(4)).await.unwrap());
    bench.recorded(known, &["approver.added", "approver.removed"]).await;
    let late = store.decide_grant(grant, dana, Decision::Approve, ALONE, &when(5)).await.unwrap();
    assert_eq!(late, DecisionOutcome::Over);
    store.decide_grant(grant, dana, Decision::Deny, ALONE, &when(5)).await.unwrap();
    let next = bench.minted(&device, "next").await;
    assert_eq!(bench.approve(next, sam, ALONE).await, DecisionOutcome::Done);
    store.set_device_approver(&id("printer-1"), "dana", true, &when(6)).await.unwrap();
    store.set_device_approver(&id("printer-1"), "sam", false, &when(6)).await.unwrap();
    assert_eq!(bench.redeem(&device, next, ALONE).await, Redemption::ApproverLost);
}

pub async fn a_person_has_five_sign_ins_open_at_the_most_a_092(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let sam = bench.operator("sam", Role::Approver).await;
    let mut grants = Vec::new();
    for number in 0..MAX_OPEN_CLAIMS + 1 {
        let device = bench.active(&format!("printer-{number}")).await;
        grants.push(bench.minted(&device, &format!("code {number}")).await);
    }
    let (last, others) = grants.split_last().unwrap();
    for grant in others {
        assert_eq!(bench.claim(*grant, dana, 4).await, ClaimOutcome::Claimed);
    }
    let known = bench.records().await.len();
    assert_eq!(bench.claim(*last, dana, 4).await, ClaimOutcome::TooMany);
    bench.recorded(known, &[]).await;
    assert_eq!(bench.claim(others[0], dana, 4).await, ClaimOutcome::Claimed, "what is open may be opened again");
    assert_eq!(bench.claim(*last, sam, 4).await, ClaimOutcome::Claimed, "each person has five");
    assert_eq!(bench.claim(*last, dana, 4).await, ClaimOutcome::AnothersClaim, "the alarm comes first");
    bench.store.decide_grant(*last, sam, Decision::Deny, ALONE, &when(5)).await.unwrap();
    bench.store.decide_grant(others[0], dana, Decision::Deny, ALONE, &when(5)).await.unwrap();
    let device = bench.active("printer-next").await;
    let next = bench.minted(&device, "next").await;
    assert_eq!(bench.claim(next, dana, 5).await, ClaimOutcome::Claimed, "one was decided");
    // What has run out is not open.
    let device = bench.active("printer-late").await;
    let late = code(&device, "late");
    let late = pairgate::store::NewGrant { expires_at: at(900), ..late };
    let pairgate::store::Mint::Minted(late) = bench.store.mint_grant(&late, &when(301)).await.unwrap() else {
        panic!("not minted")
    };
    assert_eq!(bench.claim(late, dana, 302).await, ClaimOutcome::Claimed);
}

pub async fn reporting_and_blocking_is_one_change_a_092(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let device = bench.active("printer-1").await;
    let tokens = bench.redeemed(&device, "before", dana).await;
    let grant = bench.claimed(&device, "code", dana).await;
    let subject = WindowSubject::Device(id("printer-1"));
    assert!(bench.store.open_window(&subject, at(900), &when(4)).await.unwrap());
    let known = bench.records().await.len();
    let told = bench
        .race(
            |store, _| async move { store.decide_grant(grant, dana, Decision::Block, ALONE, &when(5)).await.unwrap() },
        )
        .await;
    assert_eq!(how_many(&told, &DecisionOutcome::Done), 1);
    bench.recorded(known, &["grant.reported", "device.suspended"]).await;
    assert_eq!(bench.device("printer-1").await.state, pairgate::model::device::DeviceState::Suspended);
    assert_eq!((bench.state(grant).await, bench.state(tokens).await), (GrantState::Denied, GrantState::Revoked));
}

pub async fn an_approval_is_undone_by_who_gave_it_for_a_day_and_once_a_101(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let sam = bench.operator("sam", Role::Approver).await;
    let device = bench.active("printer-1").await;
    let store = &bench.store;
    let since = |seconds: u64| at(seconds).minus(Duration::from_secs(DAY));
    let pending = bench.claimed(&device, "pending", dana).await;
    assert!(!store.undo_approval(pending, dana, since(6), &when(6)).await.unwrap(), "nothing was approved");
    let grant = bench.redeemed(&device, "code", dana).await;
    assert!(!store.undo_approval(grant, sam, since(7), &when(7)).await.unwrap(), "another's");
    assert!(!store.undo_approval(grant, dana, since(5 + DAY), &when(5 + DAY)).await.unwrap(), "too late");
    let known = bench.records().await.len();
    let told =
        bench.race(|store, _| async move { store.undo_approval(grant, dana, at(0), &when(7)).await.unwrap() }).await;
    assert_eq!(how_many(&told, &true), 1);
    bench.recorded(known, &["grant.undone"]).await;
    assert_eq!(bench.state(grant).await, GrantState::Revoked);
    let approved = bench.approved(&device, "next", dana).await;
    assert!(store.undo_approval(approved, dana, since(6), &when(6)).await.unwrap(), "before the device fetched it");
    assert_eq!(bench.redeem(&device, approved, ALONE).await, Redemption::Lost);
    // A first approval is taken back, too.
    let mine = bench.paired_by("printer-2", by("dana", 0), by("dana", 2)).await;
    let first = bench.minted(&mine, "first").await;
    bench.approve(first, dana, AFTER_PAIRING).await;
    assert!(!store.undo_approval(first, sam, since(7), &when(7)).await.unwrap());
    assert!(store.undo_approval(first, dana, since(7), &when(7)).await.unwrap());
    assert_eq!(bench.state(first).await, GrantState::Revoked);
}
