//! Follows the audit log, and hands what it says to whoever sends: the endpoint, the outside broker, or both.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::events::News;
use crate::id::DeviceId;
use crate::mqtt::desk::{Desk, Outgoing};

/// Without a wake-up call, the log is looked at this often: what another process changed is seen in time.
const LOOK: Duration = Duration::from_secs(1);
/// The feed is sent at most once in this time …
const FEED_QUIET: Duration = Duration::from_millis(500);
/// … and at least once in this one.
const FEED_HEARTBEAT: Duration = Duration::from_secs(60);

/// Where messages go. None of these waits: what can't be sent is dropped, and asked for again by whom it concerns.
pub trait Outlet: Send + Sync {
    /// Is there anybody to send to at all?
    fn is_open(&self) -> bool;
    /// Sends a message.
    fn send(&self, outgoing: Outgoing);
    /// Ends the connection of a device that may not have it any more.
    fn end(&self, device: &DeviceId);
    /// Looks again who of the people may be connected, and see what.
    fn people_changed(&self);
}

/// Follows until the process stops.
pub async fn follow(desk: Arc<Desk>, outlets: Vec<Arc<dyn Outlet>>, mut stopping: watch::Receiver<bool>) {
    let broker = Arc::clone(desk.broker());
    let mut changes = broker.wake().subscribe();
    let mut look = tokio::time::interval(LOOK);
    let mut seen = None;
    let mut feed = Feed::default();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            changed = changes.recv() => match changed {
                Ok(()) | Err(RecvError::Lagged(_)) => feed.is_due = true,
                Err(RecvError::Closed) => return,
            },
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        }
        if let Err(error) = pass_on(&desk, &outlets, &mut seen).await {
            tracing::warn!(%error, "the news could not be read; trying again");
        }
        feed.send_if_due(&desk, &outlets).await;
    }
}

async fn pass_on(
    desk: &Desk,
    outlets: &[Arc<dyn Outlet>],
    seen: &mut Option<i64>,
) -> Result<(), crate::broker::events::NewsError> {
    let mut after = match *seen {
        Some(after) => after,
        None => desk.broker().news_begins().await?,
    };
    loop {
        let batch = desk.broker().news(after).await?;
        after = batch.seen;
        *seen = Some(after);
        for news in &batch.news {
            match news {
                News::Ended(device) => outlets.iter().for_each(|outlet| outlet.end(device)),
                News::PeopleChanged => outlets.iter().for_each(|outlet| outlet.people_changed()),
                News::Tell(..) | News::PairingChanged(_) | News::PairingConfirmed(_) => {
                    for outgoing in desk.push(news).await {
                        outlets.iter().for_each(|outlet| outlet.send(outgoing.clone()));
                    }
                }
            }
        }
        if !batch.is_full {
            return Ok(());
        }
    }
}

/// When what waits is sent.
#[derive(Default)]
struct Feed {
    is_due: bool,
    sent_at: Option<Instant>,
}

impl Feed {
    async fn send_if_due(&mut self, desk: &Desk, outlets: &[Arc<dyn Outlet>]) {
        let now = Instant::now();
        let age = self.sent_at.map_or(FEED_HEARTBEAT, |sent_at| now - sent_at);
        let is_time = (self.is_due && age >= FEED_QUIET) || age >= FEED_HEARTBEAT;
        if !is_time || !outlets.iter().any(|outlet| outlet.is_open()) {
            return;
        }
        (self.is_due, self.sent_at) = (false, Some(now));
        if let Some(outgoing) = desk.feed().await {
            outlets.iter().for_each(|outlet| outlet.send(outgoing.clone()));
        }
    }
}
