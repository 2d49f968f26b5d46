//! Asking for a code (RFC 8628 section 3.1): who gets one, and who gets nothing.

use crate::support::TestBroker;

#[tokio::test]
async fn an_unenrolled_client_gets_no_code_and_nothing_is_stored_a_001() {
    let test = TestBroker::start().await;
    let mut stranger = test.stranger("lobby-printer-01");
    let error = stranger.request_code(None, None).await.unwrap_err();
    assert_eq!(error.oauth_error(), Some("invalid_client"));
    assert!(test.broker.pending_grants(10).await.unwrap().is_empty());
    assert_eq!(test.count("code.unenrolled").await, 1);
}
