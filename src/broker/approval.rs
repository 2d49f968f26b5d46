//! The approver's side (design section 4, steps 4 and 5).
//!
//! 1. The approver types or scans a code: [`Broker::open_code`]. It claims the sign-in for this person; the device now shows a number.
//! 2. The page shows what is verified: [`Broker::review`].
//! 3. The approver decides: [`Broker::decide`]. Approving needs the number that only this device shows. Where policy wants two persons, the first approval
//!    gives the claim up, and somebody else does the same three steps.
//! 4. Who approved may end it again for a day: [`Broker::undo_approval`].
//!
//! Who may approve which device is in [`approvers`](crate::broker::approvers). A code that is unknown, spent, expired, foreign or another's gives one answer.

use std::net::IpAddr;
use std::sync::Arc;

use crate::broker::refusals::network_of;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::id::{GrantId, OperatorId};
use crate::model::audit::Event;
use crate::model::device::{Device, DeviceState};
use crate::model::grant::{Grant, GrantState, Standing, UNDO, WhySecond};
use crate::model::kind::{Kind, NewApprover};
use crate::model::operator::{Reach, Role};
use crate::model::resource::Resource;
use crate::model::site::Site;
use crate::model::user_code::UserCode;
use crate::secret::{b64u, is_equal};
use crate::store::{ClaimOutcome, Decision, DecisionOutcome, GrantOfDevice, GuessBucket, SecondPerson, StoreError};

/// Wrong codes in ten minutes: of one approver, of one address, of all (R-8628-16).
const GUESSES: (i64, i64, i64) = (10, 30, 300);

/// What became of a code that somebody typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is this approver's to decide.
    Claimed(GrantId),
    /// None of ours, or not (any more) this approver's.
    NotOurs,
    /// Too many wrong codes; ask again in some minutes.
    TooManyGuesses,
    /// This approver approved it already; now it is a second person's turn.
    WaitsForSecond,
    /// This approver has too many others open.
    TooManyOpen,
}

/// Everything that the approve page shows. All of it is verified by the broker, except where `Device::facts` says what people wrote down.
#[derive(Debug)]
pub struct Review {
    /// The sign-in.
    pub grant: Grant,
    /// The device.
    pub device: Device,
    /// Its kind.
    pub kind: Arc<Kind>,
    /// What it asks for access to.
    pub resource: Arc<Resource>,
    /// Site name.
    pub site: String,
    /// Is the device on its site's network? `None` if nobody has said which that is.
    pub on_site: Option<bool>,
    /// Who approved it first, by name: this approver is the second.
    pub first_by: Option<String>,
    /// Why this approver's approval alone is not enough.
    pub why_second: Option<WhySecond>,
    /// Digest of what is shown; comes back with the decision.
    pub shown: String,
}

/// What became of a decision.
#[derive(Debug, PartialEq, Eq)]
pub enum Decided {
    /// It stands.
    Done,
    /// The approval is noted; for this reason a second person must approve as well.
    First(WhySecond),
    /// Who had approved first may not approve any more. The sign-in was denied.
    FirstLost,
    /// Another number; tries left, zero when that has denied the sign-in.
    WrongNumber(u8),
    /// The page was old: what it showed is not what is asked now. Nothing was decided.
    Outdated,
    /// It was over before.
    Over,
}

impl Broker {
    /// Opens a code for this approver.
    ///
    /// # Errors
    /// If the caller may not approve, or the store fails.
    pub async fn open_code(&self, caller: &Caller, input: &str) -> Result<Opened, UseCaseError> {
        let by = approver(caller)?;
        let context = self.context(caller);
        let buckets = buckets(by, caller.peer);
        let _one_at_a_time = self.guessing.lock().await;
        if self.store.is_guess_budget_spent(&buckets, context.now).await? {
            return Ok(Opened::TooManyGuesses);
        }
        let policy = self.policy();
        let prefixes = policy.kinds().iter().map(|kind| kind.prefix.as_str());
        let found = match UserCode::parse_any(input, prefixes) {
            Some(code) => self.store.grant_by_user_code(&code.hash(&self.user_code_key)).await?,
            None => None,
        };
        let device = match &found {
            Some(grant) => {
                let device = self.store.device_by_row(grant.device_row).await?;
                // Of another site's devices nothing is told, not even that the code is one.
                device
                    .filter(|device| device.state == DeviceState::Active && may_approve_at(caller, &device.facts.site))
            }
            None => None,
        };
        if let (Some(grant), Some(device)) = (found, device) {
            let wants_number = self.kind(&device.facts.kind).is_none_or(|kind| kind.confirmation_number);
            let number = if wants_number { Some(format!("{:02}", self.random.below(100)?)) } else { None };
            let outcome = self.store.claim_grant(grant.id, by, number.as_deref(), &context).await?;
            self.wake.grant(grant.id);
            match outcome {
                ClaimOutcome::Claimed => return Ok(Opened::Claimed(grant.id)),
                ClaimOutcome::ApprovedFirst => return Ok(Opened::WaitsForSecond),
                ClaimOutcome::TooMany => return Ok(Opened::TooManyOpen),
                // Whoever may not open it is told nothing of it.
                ClaimOutcome::AnothersClaim | ClaimOutcome::NotListed | ClaimOutcome::Gone => {}
            }
        }
        self.store.record_guess(&buckets, &context).await?;
        self.wake.pages();
        Ok(Opened::NotOurs)
    }

    /// What there is to decide, for the approver who opened it.
    ///
    /// # Errors
    /// If it is over, or another's: the same answer.
    pub async fn review(&self, caller: &Caller, id: GrantId) -> Result<Review, UseCaseError> {
        let by = approver(caller)?;
        let over = || {
            UseCaseError::NotFound(
                "this sign-in is over, or was opened by somebody else. If the device still waits, start again on it"
                    .into(),
            )
        };
        let grant = self.store.grant(id).await?.ok_or_else(over)?;
        let is_mine = grant.claim.as_ref().is_some_and(|claim| claim.by == by);
        let is_pending = matches!(grant.standing(self.now()), Standing::Pending { .. });
        let device =
            self.store.device_by_row(grant.device_row).await?.filter(|device| device.state == DeviceState::Active);
        let mut device = device.filter(|device| may_approve_at(caller, &device.facts.site));
        if !self.store.is_device_approver(grant.device_row, by).await? {
            device = None;
        }
        let (Some(device), true, true) = (device, is_mine, is_pending) else { return Err(over()) };
        let kind = self.kind(&device.facts.kind).ok_or_else(over)?;
        let resource = self.resource(&grant.resource).ok_or_else(over)?;
        let site = self.store.site(&device.facts.site).await?;
        let on_site = site.as_ref().zip(grant.peer).and_then(|(site, peer)| site.has_address(peer));
        let first_by = match grant.first {
            Some(_) => self.store.approved_by(id).await?.into_iter().next(),
            None => None,
        };
        let why_second = self.store.why_second(id, by, second_person(&kind), self.now()).await?;
        let shown = self.shown_digest(caller, &grant, &device, (on_site, why_second), (&kind, &resource));
        Ok(Review {
            first_by,
            why_second,
            site: site.map_or_else(String::new, |site| site.name),
            on_site,
            shown,
            kind,
            resource,
            grant,
            device,
        })
    }

    /// The code of this sign-in, as its device shows it, if that is what was typed.
    pub fn code_of(&self, review: &Review, typed: &str) -> Option<String> {
        let code = UserCode::parse_any(typed, [review.kind.prefix.as_str()])?;
        is_equal(&code.hash(&self.user_code_key), &review.grant.user_code_hash)
            .then(|| code.display(&review.kind.prefix))
    }

    /// Decides.
    ///
    /// # Errors
    /// If the caller may not approve, or the store fails.
    pub async fn decide(
        &self,
        caller: &Caller,
        id: GrantId,
        decision: Decision,
        shown: &str,
        number: &str,
    ) -> Result<Decided, UseCaseError> {
        let by = approver(caller)?;
        let review = match self.review(caller, id).await {
            Ok(review) => review,
            Err(UseCaseError::NotFound(_)) => return Ok(Decided::Over),
            Err(error) => return Err(error),
        };
        let context = self.context(caller);
        if decision == Decision::Approve {
            // Denying is safe whatever the page showed; approving is only for exactly what it showed.
            if !is_equal(review.shown.as_bytes(), shown.as_bytes()) {
                return Ok(Decided::Outdated);
            }
            let wanted = review.grant.claim.as_ref().and_then(|claim| claim.confirmation_number.as_deref());
            let typed: String = number.chars().filter(|character| !character.is_whitespace()).collect();
            let fits = match wanted {
                Some(wanted) => is_equal(wanted.as_bytes(), typed.as_bytes()),
                // The kind needs no number; then the site's network is what proves that the device is where it should be.
                None => !review.kind.confirmation_number && review.on_site == Some(true),
            };
            if !fits {
                let left = self.store.record_wrong_number(id, by, &context).await?;
                self.wake.grant(id);
                return Ok(left.map_or(Decided::Over, Decided::WrongNumber));
            }
        }
        let outcome = self.store.decide_grant(id, by, decision, second_person(&review.kind), &context).await?;
        self.wake.grant(id);
        Ok(match outcome {
            DecisionOutcome::Done => Decided::Done,
            DecisionOutcome::First(why) => Decided::First(why),
            DecisionOutcome::FirstLost => Decided::FirstLost,
            DecisionOutcome::Over => Decided::Over,
        })
    }

    /// A sign-in that this caller approved less than a day ago, and that can be undone; with its device.
    ///
    /// # Errors
    /// If there is none, or it is another's: the same answer.
    pub async fn own_approval(&self, caller: &Caller, id: GrantId) -> Result<(Grant, Device), UseCaseError> {
        caller.must_be_no_program()?;
        let by = approver(caller)?;
        let is_own = |grant: &Grant| {
            let first = grant.first.as_ref();
            let is_first = first.is_some_and(|first| first.by == by);
            let is_alive = match grant.state {
                GrantState::Approved | GrantState::Redeemed => grant.decided_by == Some(by) || is_first,
                GrantState::Pending => is_first,
                GrantState::Denied | GrantState::Revoked => false,
            };
            let at = grant.decided_at.or(first.map(|first| first.at));
            is_alive && at.is_some_and(|at| self.now().since(at) < UNDO)
        };
        let grant = self.store.grant(id).await?.filter(is_own).ok_or_else(nothing_to_undo)?;
        let device = self.store.device_by_row(grant.device_row).await?;
        let device = device.filter(|device| caller.reach().has(&device.facts.site)).ok_or_else(nothing_to_undo)?;
        Ok((grant, device))
    }

    /// Ends a sign-in that this caller approved less than a day ago: its tokens are dead when this returns. The device.
    ///
    /// # Errors
    /// As [`Broker::own_approval`].
    pub async fn undo_approval(&self, caller: &Caller, id: GrantId) -> Result<Device, UseCaseError> {
        caller.must_be_no_program()?;
        let (_, device) = self.own_approval(caller, id).await?;
        let (by, context) = (approver(caller)?, self.context(caller));
        let is_done = self.store.undo_approval(id, by, context.now.minus(UNDO), &context).await?;
        self.wake.grant(id);
        if is_done { Ok(device) } else { Err(nothing_to_undo()) }
    }

    /// Somebody was sent a code that is not ours, and says so.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn report_foreign_code(&self, caller: &Caller) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        self.store.record(Event::CodeReported, None, "", &self.context(caller)).await?;
        self.wake.pages();
        Ok(())
    }

    /// Sign-ins that wait, oldest first. Those of a site with quiet hours now are not told of, but to who has opened them.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn pending_grants(&self, caller: &Caller, limit: u32) -> Result<Vec<GrantOfDevice>, StoreError> {
        let now = self.now();
        let sites = self.store.sites(&caller.reach()).await?;
        let (quiet, loud): (Vec<_>, Vec<_>) = sites.into_iter().partition(|site| site.is_quiet(now));
        let reach = |sites: Vec<Site>| Reach::Sites(sites.into_iter().map(|site| site.id).collect());
        if quiet.is_empty() {
            return self.store.pending_grants(&caller.reach(), now, limit).await;
        }
        let mut found = self.store.pending_grants(&reach(quiet), now, 1000).await?;
        found.retain(|found| {
            caller.operator.is_some_and(|by| found.grant.claim.as_ref().is_some_and(|claim| claim.by == by))
        });
        found.extend(self.store.pending_grants(&reach(loud), now, limit).await?);
        Ok(found)
    }

    /// With the session in it: what another page of the same person relayed does not fit here.
    fn shown_digest(
        &self,
        caller: &Caller,
        grant: &Grant,
        device: &Device,
        (on_site, why_second): (Option<bool>, Option<WhySecond>),
        (kind, resource): (&Kind, &Resource),
    ) -> String {
        let shown = serde_json::json!([
            grant.id,
            device.id,
            device.facts,
            b64u(&grant.jkt),
            device.key.as_ref().map(|key| key.assurance),
            grant.scope.to_string(),
            grant.resource,
            grant.peer,
            on_site,
            grant.claim.as_ref().map(|claim| claim.at),
            caller.session.map(|session| b64u(&session)),
            grant.first.as_ref().map(|first| first.by.0),
            why_second.map(WhySecond::words),
            // The policy may have changed since.
            kind.words(&grant.scope, resource),
            resource.label,
            kind.refresh_for(&grant.scope).map(|refresh| refresh.absolute.as_secs()),
        ]);
        b64u(&self.shown_key.tag(&[shown.to_string().as_bytes()]))
    }
}

fn nothing_to_undo() -> UseCaseError {
    UseCaseError::NotFound(
        "there is nothing to undo: it has ended, or somebody else approved it, or that was more than a day ago".into(),
    )
}

/// When one person is not enough, by a kind's policy.
pub(super) fn second_person(kind: &Kind) -> SecondPerson {
    SecondPerson { after_pairing: kind.two_persons, when_new: kind.new_approver == NewApprover::Second }
}

/// Only a person approves: neither the command line nor any other machine.
fn approver(caller: &Caller) -> Result<OperatorId, UseCaseError> {
    caller.must_be_no_program()?;
    caller.must(Role::may_approve)?;
    caller.operator.ok_or(UseCaseError::NotAllowed)
}

fn may_approve_at(caller: &Caller, site: &str) -> bool {
    caller.rights.role_at(site).is_some_and(Role::may_approve)
}

fn buckets(by: OperatorId, peer: Option<IpAddr>) -> Vec<GuessBucket> {
    let (per_approver, per_address, in_all) = GUESSES;
    let mut buckets = vec![(format!("operator:{}", by.0), per_approver), ("all".into(), in_all)];
    buckets.extend(peer.map(|peer| (format!("address:{}", network_of(peer)), per_address)));
    buckets
}
