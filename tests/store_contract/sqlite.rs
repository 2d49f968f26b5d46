//! What only SQLite can be asked: files that were tampered with or are foreign, the batches of the writer thread, and the bytes on the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waiting, Poll, Waker};

use pairgate::broker::people::Browser;
use pairgate::model::audit::{Event, GENESIS};
use pairgate::model::operator::Role;
use pairgate::secret::{b64u, from_b64u};
use pairgate::simulator::{PageOperator, TokenAnswer};
use pairgate::store::{Store, StoreError};
use rusqlite::Connection;

use super::{Bench, backends, when};
use crate::support::TestBroker;

/// The database, as somebody with a shell on the machine has it.
fn by_hand(bench: &Bench) -> Connection {
    Connection::open(bench.data.path().join("pairgate.db")).unwrap()
}

/// Runs an asker up to its first wait: what it asks for is then queued.
fn queued<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Option<T> {
    match future.as_mut().poll(&mut Waiting::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn verify_names_the_first_record_that_was_tampered_with_a_083() {
    let rows: [(&str, &str, Option<i64>); 19] = [
        ("nothing", "SELECT 1", None),
        ("what", "UPDATE audit SET detail = 'nothing to see' WHERE id = 3", Some(3)),
        ("what, by a letter", "UPDATE audit SET detail = detail || ' ' WHERE id = 3", Some(3)),
        ("when", "UPDATE audit SET at = at + 1 WHERE id = 3", Some(3)),
        ("event", "UPDATE audit SET event = 'operator.disabled' WHERE id = 3", Some(3)),
        ("severity", "UPDATE audit SET severity = 'info' WHERE id = 4", Some(4)),
        ("who", "UPDATE audit SET actor = 'operator:emil' WHERE id = 3", Some(3)),
        ("which device", "UPDATE audit SET device = 'other-printer' WHERE id = 3", Some(3)),
        ("from where", "UPDATE audit SET peer = NULL WHERE id = 3", Some(3)),
        ("hash", "UPDATE audit SET hash = zeroblob(32) WHERE id = 3", Some(3)),
        ("hash too short", "UPDATE audit SET hash = x'00' WHERE id = 3", Some(3)),
        ("removed", "DELETE FROM audit WHERE id = 3", Some(3)),
        ("the first removed", "DELETE FROM audit WHERE id = 1", Some(1)),
        ("removed and closed up", "DELETE FROM audit WHERE id = 3; UPDATE audit SET id = id - 1 WHERE id > 3", Some(3)),
        (
            "reordered",
            "UPDATE audit SET id = 99 WHERE id = 3; UPDATE audit SET id = 3 WHERE id = 4; UPDATE audit SET id = 4 WHERE id = 99",
            Some(3),
        ),
        (
            "inserted at the end",
            "INSERT INTO audit SELECT 7, at, event, severity, actor, device, peer, detail, hash FROM audit WHERE id = 6",
            Some(7),
        ),
        (
            "inserted before the first",
            "INSERT INTO audit SELECT 0, at, event, severity, actor, device, peer, detail, hash FROM audit WHERE id = 1",
            Some(1),
        ),
        ("not the only one", "UPDATE audit SET detail = 'x' WHERE id IN (2, 5)", Some(2)),
        ("everything after the first", "UPDATE audit SET detail = 'x' WHERE id > 1", Some(2)),
    ];
    for (what, sql, first_bad) in rows {
        let bench = Bench::new(backends::sqlite);
        for index in 1..=6 {
            let event = if index == 4 { Event::KeyMismatch } else { Event::CodeIssued };
            bench.store.record(event, None, &format!("sign-in {index}"), &when(index)).await.unwrap();
        }
        by_hand(&bench).execute_batch(sql).unwrap();
        let verdict = bench.store.verify_audit().await.unwrap();
        assert_eq!(verdict.first_bad, first_bad, "{what}");
        assert_eq!(verdict.records, first_bad.map_or(6, |bad| bad - 1), "{what}: those before it hold");
        assert_eq!(bench.restarted().store.verify_audit().await.unwrap(), verdict, "{what}: after a restart");
    }
}

#[tokio::test]
async fn a_forged_hash_shows_at_the_next_record_and_a_cut_off_end_at_the_anchor_a_083() {
    let bench = Bench::new(backends::sqlite);
    for index in 1..=6 {
        bench.store.record(Event::CodeIssued, None, &format!("sign-in {index}"), &when(index)).await.unwrap();
    }
    let anchor = bench.store.verify_audit().await.unwrap();
    let mut forged = bench.records().await.remove(2);
    forged.detail = "sign-in of another".into();
    let before = bench.store.audit_hash(2).await.unwrap().unwrap();
    by_hand(&bench)
        .execute(
            "UPDATE audit SET detail = ?, hash = ? WHERE id = 3",
            rusqlite::params![forged.detail, forged.hash(&before)],
        )
        .unwrap();
    assert_eq!(bench.store.verify_audit().await.unwrap().first_bad, Some(4));

    let bench = Bench::new(backends::sqlite);
    for index in 1..=6 {
        bench.store.record(Event::CodeIssued, None, &format!("sign-in {index}"), &when(index)).await.unwrap();
    }
    assert_eq!(bench.store.verify_audit().await.unwrap(), anchor, "the same records, the same head");
    by_hand(&bench).execute_batch("DELETE FROM audit WHERE id > 4").unwrap();
    bench.store.record(Event::CodeIssued, None, "written anew", &when(9)).await.unwrap();
    bench.store.record(Event::CodeIssued, None, "written anew", &when(9)).await.unwrap();
    let rewritten = bench.store.verify_audit().await.unwrap();
    assert_eq!((rewritten.records, rewritten.first_bad), (6, None), "a chain alone can't tell");
    assert_ne!(bench.store.audit_hash(6).await.unwrap(), Some(anchor.head), "but the noted head can");
    by_hand(&bench).execute_batch("DELETE FROM audit").unwrap();
    assert_eq!(bench.store.verify_audit().await.unwrap().head, GENESIS);
    assert_eq!(bench.store.audit_hash(6).await.unwrap(), None);
}

/// Adds one operator each in one batch of the writer; what each asker was told.
async fn added_in_one_batch(store: &Arc<dyn Store>, hand: &Connection, names: &[&'static str]) -> Vec<bool> {
    let contexts = when(1);
    hand.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer takes this one and waits for the lock; all others then wait for the writer.
    let mut first = store.add_operator("first", Some(Role::Viewer), &contexts);
    assert!(queued(&mut first).is_none());
    let mut others: Vec<_> = names.iter().map(|name| store.add_operator(name, Some(Role::Viewer), &contexts)).collect();
    assert!(others.iter_mut().all(|other| queued(other).is_none()));
    hand.execute_batch("ROLLBACK").unwrap();
    let mut told = vec![first.await.is_ok()];
    for other in others {
        told.push(other.await.is_ok());
    }
    told
}

#[tokio::test]
async fn a_failure_of_one_change_does_not_undo_its_neighbours() {
    let bench = Bench::new(backends::sqlite);
    let hand = by_hand(&bench);
    hand.execute_batch(
        "CREATE TRIGGER fault BEFORE INSERT ON operator_roles WHEN (SELECT name FROM operators WHERE id = NEW.operator) LIKE 'bad%' \
         BEGIN SELECT RAISE(ABORT, 'this one fails'); END",
    )
    .unwrap();
    let told = added_in_one_batch(&bench.store, &hand, &["good-1", "bad-1", "good-2", "bad-2", "good-3"]).await;
    assert_eq!(told, [true, true, false, true, false, true]);
    let names: Vec<_> = bench.store.operators().await.unwrap().into_iter().map(|operator| operator.name).collect();
    assert_eq!(names, ["first", "good-1", "good-2", "good-3"], "nothing is left of those that failed");
    bench.recorded(0, &["operator.added"; 4]).await;
    assert_eq!(bench.store.verify_audit().await.unwrap().first_bad, None);
}

#[tokio::test]
async fn who_is_told_of_a_failure_has_changed_nothing_also_when_the_database_ends_the_transaction_itself() {
    let bench = Bench::new(backends::sqlite);
    let hand = by_hand(&bench);
    // As SQLite does by itself on a full disk or a failed write.
    hand.execute_batch(
        "CREATE TRIGGER fault BEFORE INSERT ON operator_roles WHEN (SELECT name FROM operators WHERE id = NEW.operator) = 'disk-full' \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END",
    )
    .unwrap();
    let asked = ["before", "disk-full", "after-1", "after-2"];
    let told = added_in_one_batch(&bench.store, &hand, &asked).await;
    let stored: Vec<_> = bench.store.operators().await.unwrap().into_iter().map(|operator| operator.name).collect();
    for (name, is_done) in std::iter::once(&"first").chain(&asked).zip(&told) {
        assert_eq!(stored.contains(&(*name).to_owned()), *is_done, "{name} was told {is_done}; stored: {stored:?}");
    }
    assert!(!stored.contains(&"disk-full".to_owned()));
    assert_eq!(bench.records().await.len(), stored.len(), "a record for each change and for nothing else");
    // And the thread goes on.
    assert!(bench.store.add_operator("later", Some(Role::Viewer), &when(2)).await.unwrap().is_some());
    assert_eq!(bench.store.verify_audit().await.unwrap().first_bad, None);
}

#[tokio::test]
async fn overload_is_refused_and_takes_no_memory_a_091() {
    const QUEUE: usize = 1024;
    let bench = Bench::new(backends::sqlite);
    let (hand, context) = (by_hand(&bench), when(1));
    hand.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 2 * QUEUE, "the queue has no bound");
        let mut change = bench.store.record(Event::SignedIn, None, "", &context);
        match queued(&mut change) {
            None => waiting.push(change),
            Some(answer) => break answer,
        }
    };
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    assert!(bench.store.operators().await.is_ok(), "reads go on");
    hand.execute_batch("ROLLBACK").unwrap();
    let accepted = waiting.len();
    for change in waiting {
        change.await.unwrap();
    }
    let verdict = bench.store.verify_audit().await.unwrap();
    assert_eq!(verdict.records, i64::try_from(accepted).unwrap(), "what was taken was done, what was refused was not");
    assert_eq!(verdict.first_bad, None);
}

#[test]
fn a_new_file_may_be_opened_by_many_at_once() {
    for _ in 0..5 {
        let data = tempfile::tempdir().unwrap();
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| pairgate::store::open(data.path()).map(drop).map_err(|error| error.to_string()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    }
}

#[tokio::test]
async fn a_database_of_another_program_or_version_is_refused() {
    let rows = [
        ("another checksum", "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1"),
        ("another name", "UPDATE refinery_schema_history SET name = 'something_else' WHERE version = 1"),
        (
            "a migration of a newer version",
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) \
             SELECT 99, 'from_the_future', applied_on, checksum FROM refinery_schema_history WHERE version = 1",
        ),
    ];
    for (what, sql) in rows {
        let bench = Bench::new(backends::sqlite);
        by_hand(&bench).execute_batch(sql).unwrap();
        let Bench { store, data, .. } = bench;
        drop(store);
        let error = pairgate::store::open(data.path()).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{what}: opened"));
        assert!(error.contains("migration of") && error.contains("pairgate.db"), "{what}: {error}");
    }
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("pairgate.db"), "This is no database, but a text of some length.".repeat(200))
        .unwrap();
    assert!(pairgate::store::open(data.path()).is_err(), "no database at all");
    assert!(pairgate::store::open(&data.path().join("absent")).is_err(), "no directory");
}

/// Every file of a data directory, bytes and all.
fn raw(data: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let files: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_stolen_database_holds_no_code_token_or_session_in_clear_a_077_a_052() {
    let test = TestBroker::start().await;
    let caller = pairgate::broker::Caller::command_line();
    test.broker.add_operator(&caller, "dana", Role::Approver).await.unwrap();
    let spent_link = test.broker.operator_link(&caller, "dana").await.unwrap();
    let spent = spent_link.split("token=").nth(1).unwrap().to_owned();
    let session = test.broker.sign_in(&spent, &Browser::default()).await.unwrap().unwrap();
    let link = test.broker.operator_link(&caller, "dana").await.unwrap();
    let operator = PageOperator::new(&test.issuer, test.wire.clone()).unwrap();
    operator.sign_in(&link).await.unwrap();
    let unused_link = test.broker.operator_link(&caller, "dana").await.unwrap();

    let mut device = test.paired("lobby-printer-01", "printer").await;
    let redeemed = device.request_code(None, None).await.unwrap();
    test.approve(&operator, &mut device, &redeemed.verification_uri_complete).await;
    let TokenAnswer::Tokens(first) = device.poll_token(None).await.unwrap() else { panic!("no tokens") };
    let TokenAnswer::Tokens(second) = device.refresh().await.unwrap() else { panic!("no tokens") };
    let pending = device.request_code(None, None).await.unwrap();
    test.broker.report_foreign_code(&caller).await.unwrap();

    let mut secrets: Vec<(&str, Vec<u8>)> = Vec::new();
    for (what, text) in [
        ("redeemed device code", redeemed.device_code.as_str()),
        ("pending device code", &pending.device_code),
        ("first refresh token", first.refresh_token.as_deref().unwrap()),
        ("second refresh token", second.refresh_token.as_deref().unwrap()),
        ("session id", &session),
        ("spent link", &spent),
        ("unused link", unused_link.split("token=").nth(1).unwrap()),
        ("access token", &first.access_token),
    ] {
        secrets.push((what, text.as_bytes().to_vec()));
        if let Some(decoded) = from_b64u(text) {
            // The secret half, as raw bytes and as other texts. (The first eight bytes of codes and tokens are the row.)
            let secret = &decoded[decoded.len() - 32..];
            secrets.push((what, secret.to_vec()));
            secrets.push((what, b64u(secret).into_bytes()));
            secrets.push((what, secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()));
        }
    }
    for code in [&redeemed.user_code, &pending.user_code] {
        let letters: String = code.split('-').skip(1).collect();
        for spelling in [code.clone(), letters.clone(), letters.to_lowercase(), code[4..].to_owned()] {
            secrets.push(("user code", spelling.into_bytes()));
        }
    }
    let check = |moment: &str| {
        let files = raw(test.data.path());
        assert!(
            files.iter().any(|(name, bytes)| name.ends_with("pairgate.db-wal") && !bytes.is_empty())
                || moment != "running"
        );
        assert!(files.iter().any(|(_, bytes)| contains(bytes, b"lobby-printer-01")), "the search finds what is there");
        for (name, bytes) in &files {
            for (what, secret) in &secrets {
                assert!(!contains(bytes, secret), "{moment}: {name} holds a {what} in clear");
            }
        }
    };
    check("running");
    by_checkpoint(&test);
    check("written back");
    let data = Arc::clone(&test.data);
    let hash = pairgate::secret::sha256(&[&from_b64u(&pending.device_code).unwrap()[8..]]);
    assert!(raw(data.path()).iter().any(|(_, bytes)| contains(bytes, &hash)), "hashes are what is there");
}

/// Moves everything from the log to the database file.
fn by_checkpoint(test: &TestBroker) {
    let hand = Connection::open(test.data.path().join("pairgate.db")).unwrap();
    hand.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap();
}

#[tokio::test]
async fn the_key_of_a_database_of_the_first_version_is_its_current_es256_key() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let migration = |name: &str| {
        let mut files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        std::fs::read_to_string(files.find(|path| path.to_string_lossy().ends_with(name)).unwrap()).unwrap()
    };
    let hand = Connection::open_in_memory().unwrap();
    hand.execute_batch(&migration("__initial.sql")).unwrap();
    hand.execute("INSERT INTO signing_keys (kid, sealed, created_at) VALUES ('first', x'00ff', 5)", []).unwrap();
    hand.execute_batch(&migration("__signing_keys.sql")).unwrap();
    let kept = hand.query_row("SELECT kid, algorithm, sealed, created_at, retires_at FROM signing_keys", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    let expected: (String, String, Vec<u8>, i64, Option<i64>) = ("first".into(), "ES256".into(), vec![0, 255], 5, None);
    assert_eq!(kept.unwrap(), expected);
    let second = "INSERT INTO signing_keys (kid, algorithm, sealed, created_at) VALUES ('second', 'ES256', x'00', 6)";
    assert!(hand.execute(second, []).is_err(), "two current keys of an algorithm can't be");
}

/// The overview asks for this with every change, so it must not read the records themselves.
#[allow(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
#[tokio::test]
async fn a_series_over_100_000_records_is_counted_from_indexes_in_a_moment() {
    let bench = Bench::new(backends::sqlite);
    bench.registered("printer-1").await;
    let connection = by_hand(&bench);
    connection
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 100009)
             INSERT INTO audit (id, at, event, severity, actor, device, peer, detail, hash)
             SELECT i, 1795500000000 + i * 12000, CASE i % 4 WHEN 0 THEN 'token.issued' WHEN 1 THEN 'key.mismatch' ELSE 'token.refreshed' END,
                    CASE i % 4 WHEN 1 THEN 'alert' ELSE 'info' END, 'device:printer-1', 'printer-1', '10.2.14.31', 'sign-in 1', zeroblob(32) FROM n",
        )
        .unwrap();
    for (condition, index) in [("event = 'token.issued'", "audit_signed_in"), ("severity <> 'info'", "audit_refused")] {
        for of_sites in
            ["1", "+device IN (SELECT id FROM devices WHERE site IN (SELECT value FROM json_each('[\"default\"]')))"]
        {
            let sql = format!(
                "EXPLAIN QUERY PLAN SELECT count(*) FROM audit WHERE {condition} AND at >= 5 AND at < 9 AND {of_sites}"
            );
            let mut statement = connection.prepare(&sql).unwrap();
            let plan: Vec<String> = statement.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
            let wanted = format!("COVERING INDEX {index} (at>?");
            assert!(plan.iter().any(|step| step.contains(&wanted)), "{condition}: {plan:#?}");
        }
    }
    let only = pairgate::model::operator::Reach::Sites(std::collections::BTreeSet::from(["default".to_owned()]));
    for reach in [super::ALL, &only] {
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let began = std::time::Instant::now();
            let series = bench.store.audit_series(super::START, 86_400_000, reach).await.unwrap();
            best = best.min(began.elapsed());
            assert_eq!(series.iter().map(|bucket| bucket.signed_in).sum::<u64>(), 25_000);
        }
        assert!(best.as_millis() < 50, "{reach:?}: {best:?}");
    }
}
