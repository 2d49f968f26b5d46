//! `GET /events`: server-sent events that say only "something changed"; the page then fetches what its reader may see.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::broker::people::UsedBy;
use crate::http::Edge;
use crate::http::cookies::cookie;
use crate::http::extract::{SESSION_COOKIE, SignedIn};

/// At most one event in this time, however much changes.
const QUIET: Duration = Duration::from_millis(500);
/// A comment keeps the connection alive; the session is checked as often, so a disabled operator's stream ends.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stream; ends with the session, and when the process stops.
pub async fn stream(State(edge): State<Edge>, _: SignedIn, headers: axum::http::HeaderMap) -> Response {
    let (events, receiver) = mpsc::channel::<Result<Event, Infallible>>(1);
    let session = cookie(&headers, SESSION_COOKIE).unwrap_or_default().to_owned();
    // Before the answer: what changes after it is told, what changed before it is fetched by the page.
    let changes = edge.broker().wake().subscribe();
    tokio::spawn(feed(edge, session, changes, events));
    Sse::new(ReceiverStream::new(receiver)).into_response()
}

async fn feed(
    edge: Edge,
    session: String,
    mut changes: broadcast::Receiver<()>,
    events: mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut stopping = edge.0.stopping.clone();
    loop {
        let event = tokio::select! {
            changed = changes.recv() => match changed {
                // Too many to count is a change, too. A browser drops an event without data.
                Ok(()) | Err(RecvError::Lagged(_)) => Event::default().event("changed").data("look"),
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => Event::default().comment(""),
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
            () = events.closed() => return,
        };
        let is_alive = edge.broker().session(&session, UsedBy::Page).await.is_ok_and(|session| session.is_some());
        if !is_alive || events.send(Ok(event)).await.is_err() {
            return;
        }
        tokio::time::sleep(QUIET).await;
        // Changes that came meanwhile are one change.
        while changes.len() > 1 {
            let _ = changes.try_recv();
        }
    }
}
