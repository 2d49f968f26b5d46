//! Who waits for what: held polls for their grant, pages for anything. Only wake-up calls; what they wake looks into the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::id::GrantId;

/// Wake-up calls of one process.
#[derive(Debug)]
pub struct Wake {
    polls: Mutex<HashMap<GrantId, (Arc<Notify>, usize)>>,
    pages: broadcast::Sender<()>,
    watching: AtomicUsize,
    counter: AtomicI64,
}

impl Default for Wake {
    fn default() -> Self {
        let (pages, _) = broadcast::channel(16);
        Self { polls: Mutex::default(), pages, watching: AtomicUsize::new(0), counter: AtomicI64::new(0) }
    }
}

/// A held poll's place; leaves it when dropped.
#[derive(Debug)]
pub struct Held<'a> {
    wake: &'a Wake,
    id: GrantId,
    notify: Arc<Notify>,
}

impl Held<'_> {
    /// Where to wait. Enable it *before* looking into the store, or a change in between is missed.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut polls = self.wake.polls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = polls.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                polls.remove(&self.id);
            }
        }
        self.wake.watching.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wake {
    /// Takes a place for a held poll.
    pub fn hold(&self, id: GrantId) -> Held<'_> {
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = polls.entry(id).or_default();
        *count += 1;
        self.watching.fetch_add(1, Ordering::Relaxed);
        Held { wake: self, id, notify: Arc::clone(notify) }
    }

    /// A grant changed: its held polls look again, and so do pages.
    pub fn grant(&self, id: GrantId) {
        self.polls(id);
        self.pages();
    }

    /// A grant changed, and no page need tell: its held polls look again.
    pub fn polls(&self, id: GrantId) {
        let notify =
            self.polls.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(|(notify, _)| Arc::clone(notify));
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// Something that pages show changed.
    pub fn pages(&self) {
        // Without a page open there is nobody to tell.
        let _ = self.pages.send(());
    }

    /// Everybody looks again.
    pub fn everybody(&self) {
        let all: Vec<_> = self
            .polls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|(notify, _)| Arc::clone(notify))
            .collect();
        for notify in all {
            notify.notify_waiters();
        }
        self.pages();
    }

    /// A page's stream of wake-up calls.
    pub fn subscribe(&self) -> broadcast::Receiver<()> {
        self.pages.subscribe()
    }

    /// Is there a held poll or an open page at all?
    pub fn is_anybody_waiting(&self) -> bool {
        self.watching.load(Ordering::Relaxed) > 0 || self.pages.receiver_count() > 0
    }

    /// Notes the store's change counter; `true` if it moved.
    pub fn is_new_counter(&self, counter: i64) -> bool {
        self.counter.swap(counter, Ordering::Relaxed) != counter
    }
}
