//! What administrators see of other people, and do to them. What a person does for itself is in `people.rs`.
//!
//! Who administers everything sees everybody. Who administers some sites sees the people of those sites, and of each person only what holds there: that
//! somebody is also something in Paris is nothing that Berlin is told. What concerns the whole person (links, passkeys, sessions, being disabled)
//! is for those who administer everything: a link for a person is that person.

use crate::broker::{Broker, Caller, UseCaseError};
use crate::model::audit::one_line;
use crate::model::operator::{EVERYWHERE, Rights, Role};
use crate::store::Person;

impl Broker {
    /// The people whom the caller administers, or some of whose sites.
    ///
    /// # Errors
    /// If the caller administers nothing, or the store fails.
    pub async fn people(&self, caller: &Caller) -> Result<Vec<Person>, UseCaseError> {
        caller.must(Role::may_administer)?;
        let everybody = self.store.people(self.now()).await?;
        Ok(everybody.into_iter().filter_map(|person| as_seen_by(caller, person)).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`Broker::people`]; or if there is none of that name, or not at the caller's sites: the same answer.
    pub async fn person(&self, caller: &Caller, name: &str) -> Result<Person, UseCaseError> {
        let people = self.people(caller).await?;
        let found = people.into_iter().find(|person| person.operator.name == name);
        found.ok_or_else(|| UseCaseError::NotFound(format!("there is no operator '{}'", one_line(name))))
    }

    /// Adds a person with a role at a site, or everywhere ([`EVERYWHERE`]).
    ///
    /// # Errors
    /// If the caller may not, the name is no plain name or taken, or there is no such site.
    pub async fn add_person_at(&self, caller: &Caller, name: &str, site: &str, role: Role) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        if site == EVERYWHERE {
            self.add_person(caller, name, Some(role)).await?;
            return Ok(());
        }
        caller.must_everywhere(Role::may_administer)?;
        if self.store.site(site).await?.is_none() {
            return Err(UseCaseError::refused(format!("there is no site '{}'", one_line(site))));
        }
        self.add_person(caller, name, None).await?;
        self.set_role(caller, name, site, Some(role)).await
    }

    /// Undoes that a person was disabled. Its roles are what they were; it signs in anew.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person, or it is not disabled.
    pub async fn enable_operator(&self, caller: &Caller, name: &str) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        if self.store.enable_operator(name, &self.context(caller)).await? {
            self.wake.everybody();
            return Ok(());
        }
        Err(UseCaseError::NotFound(format!("there is no operator '{}', or it is not disabled", one_line(name))))
    }

    /// Removes all passkeys of a person who has lost them, and ends its sessions and its keys for commands: whoever has them now is out. How many passkeys
    /// there were.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person.
    pub async fn remove_passkeys(&self, caller: &Caller, name: &str) -> Result<u64, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        self.person(caller, name).await?;
        let removed = self.store.remove_passkeys(name, &self.context(caller)).await?;
        self.wake.everybody();
        Ok(removed)
    }

    /// Ends all sessions of a person; what it approved before and nobody has fetched yet is void. How many there were.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person.
    pub async fn end_sessions(&self, caller: &Caller, name: &str) -> Result<u64, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        let person = self.person(caller, name).await?;
        let ended = self.store.sign_out_everywhere(person.operator.id, &self.context(caller)).await?;
        self.wake.everybody();
        Ok(ended)
    }
}

/// What the caller may know of a person: everything, or what holds at the sites that the caller administers; `None` if that is nothing.
fn as_seen_by(caller: &Caller, mut person: Person) -> Option<Person> {
    if caller.rights.role_everywhere().is_some_and(Role::may_administer) {
        return Some(person);
    }
    let administers = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_administer);
    let seen = |rights: &Rights| {
        let mut seen = Rights::default();
        rights
            .iter()
            .filter(|(site, _)| *site == EVERYWHERE || administers(site))
            .for_each(|(site, role)| seen.add(site, role));
        seen
    };
    person.given = seen(&person.given);
    person.by_groups = seen(&person.by_groups);
    person.operator.rights = seen(&person.operator.rights);
    (person.operator.rights != Rights::default()).then_some(person)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::OperatorId;
    use crate::model::operator::Operator;

    fn person(rights: Rights) -> Person {
        let at = Timestamp::from_millis(0);
        let operator = Operator {
            id: OperatorId(1),
            name: "dana".into(),
            rights: rights.clone(),
            disabled_at: None,
            added_at: at,
        };
        Person {
            operator,
            given: rights,
            by_groups: Rights::default(),
            passkeys: 0,
            has_sso: false,
            sessions: 0,
            seen_at: None,
        }
    }

    #[test]
    fn a_sites_administrator_sees_of_people_what_holds_there_a_080() {
        let caller = |rights| Caller { rights, ..Caller::command_line() };
        let mut everywhere_and_paris = Rights::everywhere(Role::Viewer);
        everywhere_and_paris.add("paris", Role::Admin);
        let rows = [
            (Rights::at("berlin", Role::Viewer), Rights::at("berlin", Role::Viewer), true),
            (Rights::at("paris", Role::Admin), Rights::default(), false),
            (everywhere_and_paris, Rights::everywhere(Role::Viewer), true),
            (Rights::default(), Rights::default(), false),
        ];
        let mut berlin = Rights::at("berlin", Role::Admin);
        berlin.add("paris", Role::Approver);
        for (rights, expected, is_seen) in rows {
            let seen = as_seen_by(&caller(berlin.clone()), person(rights.clone()));
            assert_eq!(seen.is_some(), is_seen, "{rights:?}");
            if let Some(seen) = seen {
                assert_eq!((seen.operator.rights, seen.given), (expected.clone(), expected));
            }
            let all = as_seen_by(&caller(Rights::everywhere(Role::Admin)), person(rights.clone())).unwrap();
            assert_eq!(all.operator.rights, rights);
        }
    }
}
