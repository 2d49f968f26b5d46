//! kill -9 between any two steps, and a start on the same data: nothing acknowledged is lost, nothing is issued twice.

use pairgate::simulator::{DeviceKey, PageOperator, PairingStatus, SimulatedDevice, TokenAnswer, Wire};

use crate::support::child::{Served, free_port, json, run};

fn device(served: &Served, id: &str) -> SimulatedDevice {
    // A new client: connections to the killed process are gone.
    SimulatedDevice::new(id, &served.issuer, DeviceKey::generate_es256().unwrap(), Wire::new().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_goes_on_after_a_kill_between_any_two_steps_a_088() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut served = Served::start(data, free_port());
    let dana = served.operator(data, "dana").await;
    json(data, &["device", "add", "lobby-printer-01", "--kind", "printer"]);
    json(data, &["pairing", "open", "lobby-printer-01"]);
    let mut printer = device(&served, "lobby-printer-01");

    let shown = printer.request_pairing().await.unwrap();
    served = served.killed_and_started(data);
    let PairingStatus::Pending { digits, .. } = printer.poll_pairing().await.unwrap() else { panic!("not pending") };
    served = served.killed_and_started(data);
    dana.pair_by_number(&shown.pairing_id, &digits).await.unwrap();
    served = served.killed_and_started(data);
    assert!(matches!(printer.poll_pairing().await.unwrap(), PairingStatus::Paired(_)), "the confirmation is not lost");

    let code = printer.request_code(None, None).await.unwrap();
    let nonce = printer.dpop_nonce().unwrap().to_owned();
    served = served.killed_and_started(data);
    assert!(matches!(printer.poll_token(None).await.unwrap(), TokenAnswer::Pending { .. }));
    let htu = format!("{}/token", served.issuer);
    let stale = printer.proof("POST", &htu, Some(&nonce), "of-the-former-process").unwrap();
    let answer = printer.post_form("/token", &[("client_id", "lobby-printer-01")], &[("dpop", &stale)]).await.unwrap();
    assert_eq!(answer.oauth_error().unwrap().0, "use_dpop_nonce", "nonces of the former process are refused");

    let path = dana.claim(&code.verification_uri_complete).await.unwrap();
    served = served.killed_and_started(data);
    let TokenAnswer::Pending { confirmation_number: Some(number) } = printer.poll_token(Some(1)).await.unwrap() else {
        panic!("no number")
    };
    dana.approve(&path, &number).await.unwrap();
    served = served.killed_and_started(data);
    let TokenAnswer::Tokens(_) = printer.poll_token(Some(1)).await.unwrap() else { panic!("the approval is lost") };
    served = served.killed_and_started(data);
    printer.adopt_device_code(&code.device_code);
    let again = printer.poll_token(None).await.unwrap();
    assert!(matches!(&again, TokenAnswer::Error { error, .. } if error == "invalid_grant"), "issued twice: {again:?}");
    assert!(matches!(printer.refresh().await.unwrap(), TokenAnswer::Tokens(_)));
    served = served.killed_and_started(data);
    assert!(
        matches!(printer.refresh().await.unwrap(), TokenAnswer::Tokens(_)),
        "the successor that was answered is in force"
    );

    let code = printer.request_code(None, None).await.unwrap();
    let path = dana.claim(&code.verification_uri_complete).await.unwrap();
    dana.deny(&path).await.unwrap();
    served = served.killed_and_started(data);
    assert!(matches!(printer.poll_token(None).await.unwrap(), TokenAnswer::Denied), "a denial is not lost");
    assert!(run(data, &["audit", "verify"]).status.success());
    assert!(served.stopped().success());
}

/// Eight devices with approved codes fetch their tokens while the process is killed after the k-th answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_many_redemptions_issues_nothing_twice_a_088() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut served = Served::start(data, free_port());
    let dana = served.operator(data, "dana").await;
    json(data, &["pairing", "open", "--site"]);
    let mut devices = Vec::new();
    for number in 0..8 {
        let id = format!("printer-{number:02}");
        json(data, &["device", "add", &id, "--kind", "printer"]);
        let mut device = device(&served, &id);
        let shown = device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        dana.pair_by_number(&shown.pairing_id, &digits).await.unwrap();
        device.poll_pairing().await.unwrap();
        devices.push(device);
    }
    for killed_after in 0..8 {
        let mut codes = Vec::new();
        for device in &mut devices {
            codes.push(approved(&dana, device).await);
        }
        let polls: Vec<_> = devices
            .drain(..)
            .map(|mut device| {
                tokio::spawn(async move {
                    let answer = device.poll_token(Some(1)).await;
                    (device, matches!(answer, Ok(TokenAnswer::Tokens(_))))
                })
            })
            .collect();
        let mut issued = Vec::new();
        for (number, poll) in polls.into_iter().enumerate() {
            if number == killed_after {
                served = served.killed_and_started(data);
            }
            let (device, is_issued) = poll.await.unwrap();
            devices.push(device);
            issued.push(is_issued);
        }
        for ((device, code), was_issued) in devices.iter_mut().zip(&codes).zip(issued) {
            device.adopt_device_code(code);
            let answer = device.poll_token(Some(1)).await.unwrap();
            let is_issued_now = matches!(answer, TokenAnswer::Tokens(_));
            assert!(!(was_issued && is_issued_now), "one code, two tokens");
        }
    }
    let records = json(data, &["audit", "verify"]);
    assert_eq!(records["good"], true);
}

async fn approved(dana: &PageOperator, device: &mut SimulatedDevice) -> String {
    let code = device.request_code(None, None).await.unwrap();
    let path = dana.claim(&code.verification_uri_complete).await.unwrap();
    let TokenAnswer::Pending { confirmation_number: Some(number) } = device.poll_token(Some(1)).await.unwrap() else {
        panic!("no number")
    };
    dana.approve(&path, &number).await.unwrap();
    code.device_code
}
