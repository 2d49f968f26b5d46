//! Who is connected to our own endpoint, and what each is told.
//!
//! Places are counted apart, so that strangers can't shut out those who are known: whoever has not said who it is, those who ask to be paired, operators,
//! and paired devices, of which there are never more than are registered, because each has one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::connections::Connected;
use crate::broker::refusals::network_of;
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::mqtt::desk::{Desk, Outgoing};
use crate::mqtt::follow::Outlet;

/// Connections that have not said who they are, in all and of one address (IPv6: of one /64). Each has 10 seconds for the handshake and 10 to say it; where
/// there is no more room, the one that has said nothing for longest goes, because whoever is honest says it at once.
const STRANGERS: (usize, usize) = (4096, 512);
/// Connections of devices that are to be paired, in all and of one address.
const UNPAIRED: (usize, usize) = (4096, 512);
/// Connections of operators' programs.
const OPERATORS: usize = 512;
/// Messages that wait for one client; whoever does not read loses them, and asks again.
const QUEUE: usize = 16;
/// So many connections of one device in so long, each in place of the one before, are a device that is copied, or one that is ill.
const FLAPPING: (u32, Duration) = (5, Duration::from_secs(60));
/// Between what a device is told last and the end: libraries lose what they read together with the farewell.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It may not be connected any more.
    NotAllowed,
    /// The same client has connected again.
    TakenOver,
    /// The process stops.
    Stopping,
}

/// What a connection is told.
pub struct Orders {
    /// Messages for the client, if it has subscribed to their topics.
    pub messages: mpsc::Receiver<Outgoing>,
    /// Whether it is to end.
    pub ending: watch::Receiver<Option<Ending>>,
}

/// Waits until the connection is to end. Not in the queue of messages: whoever does not read must end all the same.
pub async fn ended(ending: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match ending.wait_for(Option::is_some).await {
        Ok(ending) => ending.unwrap_or(Ending::TakenOver),
        Err(_) => Ending::TakenOver,
    }
}

/// Who came.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// From where.
    pub peer: SocketAddr,
    /// Certificates of the client, leaf first; possession of the leaf's key was proved.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Who is connected to our own endpoint.
pub struct Guests {
    desk: Arc<Desk>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    by_client: BTreeMap<String, Entry>,
    next: u64,
    strangers: Strangers,
    unpaired: Counts,
    operators: usize,
    takeovers: HashMap<DeviceId, (Timestamp, u32)>,
}

struct Entry {
    number: u64,
    connected: Connected,
    messages: mpsc::Sender<Outgoing>,
    ending: watch::Sender<Option<Ending>>,
}

impl Entry {
    /// Whoever does not read loses it, and asks again.
    fn send(&self, outgoing: &Outgoing) {
        let _ = self.messages.try_send(outgoing.clone());
    }

    fn end(&self, why: Ending) {
        self.ending.send_replace(Some(why));
    }
}

/// A number in all, and by address.
#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Counts {
    fn take(&mut self, address: IpAddr, (in_all, of_one): (usize, usize)) -> bool {
        let used = self.by_address.get(&network_of(address)).copied().unwrap_or(0);
        let is_room = self.all < in_all && used < of_one;
        if is_room {
            self.all += 1;
            self.by_address.insert(network_of(address), used + 1);
        }
        is_room
    }

    fn give_back(&mut self, address: IpAddr) {
        let address = network_of(address);
        self.all = self.all.saturating_sub(1);
        match self.by_address.get_mut(&address) {
            Some(used) if *used > 1 => *used -= 1,
            _ => drop(self.by_address.remove(&address)),
        }
    }
}

/// Connections that have not said who they are, by the order in which they came.
#[derive(Default)]
struct Strangers {
    next: u64,
    waiting: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Strangers {
    /// A place, and what tells that it was given to another.
    fn enter(&mut self, address: IpAddr, (in_all, of_one): (usize, usize)) -> (u64, oneshot::Receiver<()>) {
        let address = network_of(address);
        let of_this = self.by_address.get(&address).filter(|numbers| numbers.len() >= of_one);
        let oldest = match of_this.and_then(BTreeSet::first) {
            Some(oldest) => Some(*oldest),
            None if self.waiting.len() >= in_all => self.waiting.keys().next().copied(),
            None => None,
        };
        if let Some(evict) = oldest.and_then(|oldest| self.leave(oldest)) {
            // It may just have gone by itself.
            let _ = evict.send(());
        }
        let (evict, evicted) = oneshot::channel();
        self.next += 1;
        self.waiting.insert(self.next, (address, evict));
        self.by_address.entry(address).or_default().insert(self.next);
        (self.next, evicted)
    }

    fn leave(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (address, evict) = self.waiting.remove(&number)?;
        if let Some(numbers) = self.by_address.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(evict)
    }
}

/// A stranger's place, until it has said who it is, or is gone.
pub struct StrangersPlace(Arc<Guests>, u64);

impl Drop for StrangersPlace {
    fn drop(&mut self) {
        drop(self.0.lock().strangers.leave(self.1));
    }
}

/// A guest's place; left when dropped.
pub struct Place {
    guests: Arc<Guests>,
    client_id: String,
    number: u64,
    address: IpAddr,
    budget: Budget,
}

/// Out of which number of places one was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Budget {
    /// Paired devices: as many as are registered.
    Paired,
    Unpaired,
    Operators,
}

impl Budget {
    const fn of(connected: &Connected) -> Self {
        match connected {
            Connected::Device { .. } => Self::Paired,
            Connected::Unpaired { .. } => Self::Unpaired,
            Connected::Operator { .. } => Self::Operators,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.guests.lock();
        if book.by_client.get(&self.client_id).is_some_and(|entry| entry.number == self.number) {
            book.by_client.remove(&self.client_id);
        }
        match self.budget {
            Budget::Paired => {}
            Budget::Unpaired => book.unpaired.give_back(self.address),
            Budget::Operators => book.operators = book.operators.saturating_sub(1),
        }
    }
}

impl Guests {
    /// For a desk.
    pub fn new(desk: Arc<Desk>) -> Arc<Self> {
        Arc::new(Self { desk, book: Mutex::default() })
    }

    /// The desk.
    pub const fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// A place for whoever has just come, and what tells that it was given to another.
    pub fn receive(self: &Arc<Self>, peer: SocketAddr) -> (StrangersPlace, oneshot::Receiver<()>) {
        let (number, evicted) = self.lock().strangers.enter(peer.ip(), STRANGERS);
        (StrangersPlace(Arc::clone(self), number), evicted)
    }

    /// Ends all connections: the process stops.
    pub fn stop(&self) {
        self.lock().by_client.values().for_each(|entry| entry.end(Ending::Stopping));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for whoever is known now; in place of a former connection of the same client, which can only have had the same key. `None` if there is none.
    pub fn enter(
        self: &Arc<Self>,
        client_id: &str,
        connected: &Connected,
        peer: SocketAddr,
    ) -> Option<(Orders, Place)> {
        let (messages, received) = mpsc::channel(QUEUE);
        let (ending, ends) = watch::channel(None);
        let (address, budget) = (peer.ip(), Budget::of(connected));
        let mut book = self.lock();
        let is_room = match budget {
            Budget::Paired => true,
            Budget::Unpaired => book.unpaired.take(address, UNPAIRED),
            Budget::Operators => book.operators < OPERATORS,
        };
        if !is_room {
            return None;
        }
        book.operators += usize::from(budget == Budget::Operators);
        book.next += 1;
        let number = book.next;
        let entry = Entry { number, connected: connected.clone(), messages, ending };
        if let Some(former) = book.by_client.insert(client_id.to_owned(), entry) {
            former.end(Ending::TakenOver);
            if let Connected::Device { id, .. } = connected {
                self.note_takeover(&mut book, id, address);
            }
        }
        let guests = Arc::clone(self);
        let place = Place { guests, client_id: client_id.to_owned(), number, address, budget };
        Some((Orders { messages: received, ending: ends }, place))
    }

    fn note_takeover(self: &Arc<Self>, book: &mut Book, id: &DeviceId, address: IpAddr) {
        let now = self.desk.broker().now();
        let (most, within) = FLAPPING;
        let (since, count) =
            book.takeovers.get(id).copied().filter(|(since, _)| now.since(*since) < within).unwrap_or((now, 0));
        book.takeovers.insert(id.clone(), (since, count + 1));
        if book.takeovers.len() > 1024 {
            book.takeovers.retain(|_, (since, _)| now.since(*since) < within);
        }
        if count + 1 == most {
            let (guests, id) = (Arc::clone(self), id.clone());
            tokio::spawn(async move { guests.desk.broker().note_flapping(&id, Some(address)).await });
        }
    }

    /// Sends a message to whom its topic concerns; who has not subscribed gets nothing.
    pub fn send(&self, outgoing: &Outgoing) {
        let topics = self.desk.topics();
        let guests = self.lock();
        match topics.device_of(&outgoing.topic) {
            // The paired one, and those that ask to become it.
            Some(device) => {
                let unpaired = format!("{device}.");
                let asking = guests.by_client.range(unpaired.clone()..);
                let asking = asking.take_while(|(client, _)| client.starts_with(&unpaired));
                asking
                    .map(|(_, entry)| entry)
                    .chain(guests.by_client.get(device))
                    .for_each(|entry| entry.send(outgoing));
            }
            None => {
                let is_person = |entry: &&Entry| matches!(entry.connected, Connected::Operator { .. });
                guests.by_client.values().filter(is_person).for_each(|entry| entry.send(outgoing));
            }
        }
    }

    /// Ends the connections of people who may see less, or more, than when they connected; those who may come back at once.
    async fn look_at_people(self: Arc<Self>) {
        let people: Vec<(String, String, Connected)> = {
            let guests = self.lock();
            let of_people = guests.by_client.iter().filter_map(|(client_id, entry)| match &entry.connected {
                Connected::Operator { name, .. } => Some((client_id.clone(), name.clone(), entry.connected.clone())),
                Connected::Device { .. } | Connected::Unpaired { .. } => None,
            });
            of_people.collect()
        };
        for (client_id, name, connected) in people {
            let present = self.desk.broker().connected(&client_id, &format!("operator:{name}")).await;
            if present.ok().flatten().as_ref() != Some(&connected)
                && let Some(entry) = self.lock().by_client.get(&client_id)
            {
                entry.end(Ending::NotAllowed);
            }
        }
    }

    /// Ends the connection of a device if its key is not the device's any more, or the device may not be connected.
    async fn end_if_over(self: Arc<Self>, device: DeviceId) {
        tokio::time::sleep(LAST_WORDS).await;
        let present = self.desk.broker().connected(device.as_str(), device.as_str()).await;
        let guests = self.lock();
        let Some(entry) = guests.by_client.get(device.as_str()) else { return };
        // If the store fails, out is safer than in: it connects again.
        if present.ok().flatten().as_ref() != Some(&entry.connected) {
            entry.end(Ending::NotAllowed);
        }
    }
}

/// The guests as the follower sees them.
pub struct Guestbook(pub Arc<Guests>);

impl Outlet for Guestbook {
    fn is_open(&self) -> bool {
        self.0.lock().operators > 0
    }

    fn send(&self, outgoing: Outgoing) {
        self.0.send(&outgoing);
    }

    fn people_changed(&self) {
        tokio::spawn(Arc::clone(&self.0).look_at_people());
    }

    fn end(&self, device: &DeviceId) {
        tokio::spawn(Arc::clone(&self.0).end_if_over(device.clone()));
    }
}
