//! Sessions and ceremonies in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::audit::append;
use super::operators::{FROM, OPERATOR, operator};
use super::{SqliteStore, all, change, corrupt, first, unsigned};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Actor, Context, Event};
use crate::model::operator::{Operator, SESSION_IDLE, SignInMethod};
use crate::secret::Bytes32;
use crate::store::{LiveSession, MAX_CEREMONIES, NewSession, Result, SessionOfPerson, SessionStore};

/// As [`OPERATOR`](super::operators::OPERATOR), with those roles that count in session `s`.
const BY_THIS_SESSION: &str = "o.id, o.name, (SELECT group_concat(r.site || ' ' || r.role, ' ') FROM operator_roles r WHERE r.operator = o.id \
     AND (r.source = 'given' OR s.method = 'sso')), o.disabled_at, o.added_at";

/// Opens a session, inside a transaction.
pub(super) fn open(
    connection: &Connection,
    id: OperatorId,
    session: &NewSession,
    context: &Context,
) -> rusqlite::Result<Option<Operator>> {
    let sql = format!("SELECT {OPERATOR} {FROM} WHERE o.id = ? AND o.disabled_at IS NULL");
    let Some(operator) = first(connection, &sql, [id.0], operator)? else { return Ok(None) };
    change(
        connection,
        "INSERT INTO sessions (hash, operator, seen_at, ends_at, started_at, fresh_at, method, peer, agent) \
         VALUES (?1, ?2, ?3, ?4, ?3, ?5, ?6, ?7, ?8)",
        params![
            session.hash,
            id.0,
            context.now.millis(),
            session.ends_at.millis(),
            session.fresh_at.millis(),
            session.method.as_str(),
            context.peer.map(|peer| peer.to_string()),
            session.agent
        ],
    )?;
    change(connection, "UPDATE operators SET signed_in_at = ? WHERE id = ?", params![context.now.millis(), id.0])?;
    change(connection, "DELETE FROM sessions WHERE hash = ? AND operator = ?", params![session.replaces, id.0])?;
    append(connection, Event::SignedIn, None, session.method.words(), &by(&operator.name, context))?;
    Ok(Some(operator))
}

/// Ends all sessions of a person and voids its approvals, inside a transaction; how many sessions there were. Links that nobody has used go too: whoever
/// found one would be back at once.
pub(super) fn sign_out(connection: &Connection, id: OperatorId, context: &Context) -> rusqlite::Result<u64> {
    let name = first(
        connection,
        "UPDATE operators SET signed_out_at = ? WHERE id = ? RETURNING name",
        params![context.now.millis(), id.0],
        |row| row.get::<_, String>(0),
    )?;
    let Some(name) = name else { return Ok(0) };
    let ended = change(connection, "DELETE FROM sessions WHERE operator = ?", [id.0])?;
    change(connection, "DELETE FROM sign_in_links WHERE operator = ? AND used_at IS NULL", [id.0])?;
    append(connection, Event::SignedOutEverywhere, None, &name, context)?;
    Ok(unsigned(i64::try_from(ended).unwrap_or(i64::MAX)))
}

/// The same circumstances, by this person.
pub(super) fn by(name: &str, context: &Context) -> Context {
    Context { actor: Actor::Operator(name.to_owned()), ..context.clone() }
}

fn method(word: &str) -> rusqlite::Result<SignInMethod> {
    SignInMethod::parse(word).ok_or_else(|| corrupt("sessions.method"))
}

fn session_of_person(row: &Row<'_>) -> rusqlite::Result<SessionOfPerson> {
    Ok(SessionOfPerson {
        hash: row.get(0)?,
        started_at: Timestamp::from_millis(row.get(1)?),
        seen_at: Timestamp::from_millis(row.get(2)?),
        method: method(&row.get::<_, String>(3)?)?,
        peer: row.get(4)?,
        agent: row.get(5)?,
    })
}

fn start_ceremony(
    connection: &Connection,
    hash: &Bytes32,
    purpose: &str,
    state: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<()> {
    change(connection, "DELETE FROM ceremonies WHERE expires_at <= ?", [now.millis()])?;
    // Those of one purpose last equally long, so the first to expire is the oldest. Without the purpose, strangers who begin many sign-ins of one way would end
    // those of the other, and what signed-in people have begun.
    change(
        connection,
        "DELETE FROM ceremonies WHERE hash IN (SELECT hash FROM ceremonies WHERE purpose = ? ORDER BY expires_at DESC LIMIT -1 OFFSET ?)",
        params![purpose, MAX_CEREMONIES - 1],
    )?;
    change(
        connection,
        "INSERT INTO ceremonies (hash, purpose, state, expires_at) VALUES (?, ?, ?, ?)",
        params![hash, purpose, state, expires_at.millis()],
    )?;
    Ok(())
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn open_session(
        &self,
        operator: OperatorId,
        session: &NewSession,
        context: &Context,
    ) -> Result<Option<Operator>> {
        let (session, context) = (session.clone(), context.clone());
        self.write(move |connection| open(connection, operator, &session, &context)).await
    }

    async fn session(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<LiveSession>> {
        // Groups are heard of at the organisation's sign-in only: what a passkey or a link opens would keep roles that the groups gave once.
        let sql = format!(
            "SELECT {BY_THIS_SESSION}, s.seen_at, s.fresh_at, s.method {FROM} JOIN sessions s ON s.operator = o.id WHERE s.hash = ? AND s.ends_at > ? AND s.seen_at > ? \
             AND o.disabled_at IS NULL"
        );
        let parameters = params![hash, now.millis(), now.minus(SESSION_IDLE).millis()];
        self.read(|connection| {
            first(connection, &sql, parameters, |row| {
                Ok(LiveSession {
                    operator: operator(row)?,
                    seen_at: Timestamp::from_millis(row.get("seen_at")?),
                    fresh_at: Timestamp::from_millis(row.get("fresh_at")?),
                    method: method(&row.get::<_, String>("method")?)?,
                })
            })
        })
    }

    async fn sessions_of(&self, operator: OperatorId, now: Timestamp) -> Result<Vec<SessionOfPerson>> {
        self.read(|connection| {
            all(
                connection,
                "SELECT s.hash, s.started_at, s.seen_at, s.method, s.peer, s.agent FROM sessions s JOIN operators o ON o.id = s.operator \
                 WHERE s.operator = ? AND s.ends_at > ? AND s.seen_at > ? AND o.disabled_at IS NULL ORDER BY s.seen_at DESC, s.hash",
                params![operator.0, now.millis(), now.minus(SESSION_IDLE).millis()],
                session_of_person,
            )
        })
    }

    async fn touch_session(&self, hash: &Bytes32, now: Timestamp) -> Result<()> {
        let hash = *hash;
        self.write(move |connection| {
            change(
                connection,
                "UPDATE sessions SET seen_at = ? WHERE hash = ? AND seen_at < ?",
                params![now.millis(), hash, now.millis()],
            )?;
            Ok(())
        })
        .await
    }

    async fn end_session(&self, hash: &Bytes32, context: &Context) -> Result<()> {
        let (hash, context) = (*hash, context.clone());
        self.write(move |connection| {
            if change(connection, "DELETE FROM sessions WHERE hash = ?", [hash])? == 1 {
                append(connection, Event::SignedOut, None, "", &context)?;
            }
            Ok(())
        })
        .await
    }

    async fn sign_out_everywhere(&self, operator: OperatorId, context: &Context) -> Result<u64> {
        let context = context.clone();
        self.write(move |connection| sign_out(connection, operator, &context)).await
    }

    async fn start_ceremony(
        &self,
        hash: &Bytes32,
        purpose: &str,
        state: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let (hash, purpose, state) = (*hash, purpose.to_owned(), state.to_owned());
        self.write(move |connection| start_ceremony(connection, &hash, &purpose, &state, expires_at, now)).await
    }

    async fn take_ceremony(&self, hash: &Bytes32, purpose: &str, now: Timestamp) -> Result<Option<String>> {
        let (hash, purpose) = (*hash, purpose.to_owned());
        self.write(move |connection| {
            let taken = first(
                connection,
                "DELETE FROM ceremonies WHERE hash = ? RETURNING purpose, state, expires_at",
                [hash],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)),
            )?;
            let is_good = |(its_purpose, _, expires_at): &(String, String, i64)| {
                *its_purpose == purpose && *expires_at > now.millis()
            };
            Ok(taken.filter(is_good).map(|(_, state, _)| state))
        })
        .await
    }
}
