//! The first run, and the risk assessment that it ends with.

use pairgate::broker::Caller;
use pairgate::model::operator::Role;

use crate::support::visitor::said;
use crate::support::{Setup, TestBroker};

const RESIDUAL: &str = "Somebody at a printer may be talked into reading its number out over the phone.";

#[tokio::test]
async fn steps_are_done_when_their_outcome_is_there() {
    let test = TestBroker::with(Setup { has_address_file: true, ..Setup::default() }).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let steps = || async { test.broker.setup(&Caller::command_line()).await.unwrap() };
    assert_eq!(steps().await.next(), Some("address"));
    assert!(dana.get("/setup").await.body.contains("0 of 7 steps are done."));
    let local = [("action", "address"), ("way", "local"), ("port", "443")];
    assert_eq!(dana.post("/setup", &local).await.status, 303);
    let site = [("action", "site"), ("site_name", "Berlin HQ"), ("networks", "10.2.0.0/16, fd00::/8")];
    assert_eq!(dana.post("/setup", &site).await.status, 303);
    assert_eq!(dana.post("/setup", &[("action", "kinds")]).await.status, 303);
    test.paired("lobby-printer-01", "printer").await;
    let now = steps().await;
    assert!(now.address && now.site && now.kinds, "{now:?}");
    assert_eq!((now.devices, now.paired, now.risk), (1, 1, None));
    let accepted = [("residual", RESIDUAL), ("accepted_by", "Dana Weber, head of IT")];
    assert_eq!(dana.post("/settings/risk", &accepted).await.status, 303);
    assert_eq!(steps().await.risk, Some(1));
    assert_eq!(dana.post("/setup", &[("action", "finish")]).await.status, 303);
    assert!(steps().await.is_over);
}

#[tokio::test]
async fn the_first_link_leads_to_the_first_run_and_later_ones_to_the_overview() {
    let test = TestBroker::with(Setup { has_address_file: true, ..Setup::default() }).await;
    let landing = |name: &'static str, role| {
        let test = &test;
        async move {
            test.broker.add_operator(&Caller::command_line(), name, role).await.unwrap();
            let link = test.link(name).await;
            let answer = test.passer_by().sign_in(&link).await;
            answer.header("location").unwrap_or_default().to_owned()
        }
    };
    assert_eq!(landing("dana", Role::Admin).await, "/setup");
    assert_eq!(landing("vera", Role::Approver).await, "/", "whoever can't set anything up is not sent there");
    test.register("lobby-printer-01", "printer").await;
    assert_eq!(landing("emil", Role::Admin).await, "/");
}

#[tokio::test]
async fn a_wrong_answer_is_told_and_nothing_typed_is_lost() {
    let test = TestBroker::with(Setup { has_address_file: true, ..Setup::default() }).await;
    let dana = test.visitor("dana", Role::Admin).await;
    for (fields, told) in [
        (vec![("action", "address"), ("way", "local_ca"), ("host", "https://x.example/"), ("port", "443")], "host"),
        (vec![("action", "address"), ("way", "local_ca"), ("host", "x.example"), ("port", "0x1")], "port"),
        (
            vec![
                ("action", "address"),
                ("way", "files"),
                ("host", "x.example"),
                ("port", "443"),
                ("certificate", "/no/such"),
            ],
            "/no/such: ",
        ),
        (vec![("action", "site"), ("site_name", "Berlin"), ("networks", "10.2.0.0/99")], "10.2.0.0/99"),
        (vec![("action", "site"), ("site_name", "Ber\u{202e}lin")], "invisible"),
    ] {
        let answer = dana.post("/setup", &fields).await;
        assert_eq!(answer.status, 422, "{fields:?}");
        assert!(said(&answer).contains(told), "{fields:?}: {}", said(&answer));
        for (name, value) in fields.iter().filter(|(name, _)| !["action", "way"].contains(name)) {
            assert!(answer.body.contains(&format!("value=\"{value}\"")), "{name} was lost");
        }
    }
    for fields in [[("residual", ""), ("accepted_by", "Dana Weber")], [("residual", RESIDUAL), ("accepted_by", "")]] {
        assert_eq!(dana.post("/settings/risk", &fields).await.status, 422);
    }
    assert!(test.broker.risk_records(&Caller::command_line()).await.unwrap().is_empty());
}

#[tokio::test]
async fn another_address_comes_with_a_link_to_it_and_an_authority() {
    let test = TestBroker::with(Setup { has_address_file: true, ..Setup::default() }).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let fields = [("action", "address"), ("way", "local_ca"), ("host", "pairgate.example.org"), ("port", "8443")];
    let answer = dana.post("/setup", &fields).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("https://pairgate.example.org:8443/sign-in?token="), "{}", answer.body);
    assert!(pairgate::tls::local_ca::LocalCa::in_data(test.data.path()).exists());
    let config = pairgate::config::Config::load(None, Some(test.data.path())).unwrap();
    assert_eq!(config.public_url.unwrap().as_str(), "https://pairgate.example.org:8443/");
    test.advance(6 * 60);
    let answer = dana.post("/setup", &fields).await;
    assert_eq!(answer.status, 303, "where the server answers is not changed by a session left open (A-081)");
    assert!(answer.headers["location"].to_str().unwrap().starts_with("/sign-in/again"));
}

#[tokio::test]
async fn a_choice_that_the_next_start_would_die_of_is_not_written() {
    let test = TestBroker::with(Setup { has_address_file: true, ..Setup::default() }).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        (certificate.display().to_string(), key.display().to_string())
    };
    let (good, other) = (made("good"), made("other"));
    std::fs::write(folder.path().join("words"), "no certificate").unwrap();
    let words = folder.path().join("words").display().to_string();
    // Where the authority's folder should be is a file.
    std::fs::write(test.data.path().join("tls"), "").unwrap();
    let post = async |way: &str, certificate: &str, key: &str| {
        let fields = [("action", "address"), ("way", way), ("host", "x.example"), ("port", "443")];
        dana.post("/setup", &[&fields[..], &[("certificate", certificate), ("key", key)]].concat()).await.status
    };
    for (way, certificate, key) in [
        ("files", words.as_str(), words.as_str()),
        ("files", &good.1, &good.0),
        ("files", &good.0, &other.1),
        ("local_ca", "", ""),
    ] {
        assert_eq!(post(way, certificate, key).await, 422, "{way} {certificate} {key}");
        assert!(!test.data.path().join("setup.toml").exists(), "{way} {certificate} {key}");
    }
    assert_eq!(post("files", &good.0, &good.1).await, 200);
    assert!(test.data.path().join("setup.toml").exists());
}

#[tokio::test]
async fn only_who_administers_everything_sees_the_first_run_a_080() {
    let test = TestBroker::start().await;
    for role in [Role::Viewer, Role::Technician, Role::Approver] {
        let person = test.visitor(role.as_str(), role).await;
        for path in ["/setup", "/settings/risk", "/settings/risk/1"] {
            assert_eq!(person.get(path).await.status, 404, "{role:?} {path}");
        }
        let fields = [("residual", RESIDUAL), ("accepted_by", "Me Myself")];
        assert_eq!(person.post("/settings/risk", &fields).await.status, 404, "{role:?}");
    }
    assert!(test.broker.risk_records(&Caller::command_line()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_signed_assessment_can_be_checked_and_a_changed_one_is_found() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    for residual in [RESIDUAL, "The same as before, and a second sentence."] {
        let fields = [("residual", residual), ("accepted_by", "Dana Weber, head of IT")];
        assert_eq!(dana.post("/settings/risk", &fields).await.status, 303);
    }
    let records = test.broker.risk_records(&Caller::command_line()).await.unwrap();
    assert_eq!(records.iter().map(|record| record.version).collect::<Vec<_>>(), [2, 1]);
    let signed = dana.get("/settings/risk/1").await;
    assert_eq!((signed.status, &signed.body), (200, &records[1].signature));
    for record in &records {
        assert!(test.broker.is_risk_record_good(record).await.unwrap());
    }
    let good = &records[1];
    for (what, record) in [
        (
            "another text",
            pairgate::model::risk::RiskRecord { document: good.document.replace("Somebody", "Nobody"), ..good.clone() },
        ),
        (
            "another version's signature",
            pairgate::model::risk::RiskRecord { signature: records[0].signature.clone(), ..good.clone() },
        ),
        ("another number", pairgate::model::risk::RiskRecord { version: 7, ..good.clone() }),
        ("no signature", pairgate::model::risk::RiskRecord { signature: String::new(), ..good.clone() }),
    ] {
        assert!(!test.broker.is_risk_record_good(&record).await.unwrap(), "{what}");
    }
    assert!(dana.get("/settings/risk").await.body.contains("Its signature holds, and the audit log has it"));
}
