//! Room for connections whose clients have proved little so far. No client waits for another one's connection to end: whoever
//! comes when a room is full takes the slot of the oldest connection from the address that has most of them, and rooms are
//! apart by what a client has proved. A flood of silent connections so never delays a halt.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a client has proved. A later one is worth more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is connected, and has sent nothing.
    Silent,
    /// It has begun a TLS handshake.
    Handshake,
    /// It has completed a TLS handshake, and has shown no token.
    Anonymous,
    /// It has shown the token of a viewer.
    Viewer,
    /// It has shown the token of an operator or admin.
    Operator,
}

/// How many connections of each standing are open at a time.
#[derive(Debug, Clone, Copy)]
pub struct SlotCounts {
    /// Connections on which nothing was received: each costs a file descriptor and little memory.
    pub silent: usize,
    /// TLS handshakes under way: each costs tens of kilobytes.
    pub handshakes: usize,
    /// Connections of HTTP clients, for each of the three standings that these may have.
    pub clients: usize,
}

impl Default for SlotCounts {
    fn default() -> Self {
        SlotCounts {
            silent: 2048,
            handshakes: 512,
            clients: 512,
        }
    }
}

/// The slots of all connections that are not agents'.
#[derive(Debug, Clone)]
pub struct ConnectionSlots(Arc<Mutex<Rooms>>);

#[derive(Debug)]
struct Rooms {
    next: u64,
    silent: Room,
    handshakes: Room,
    anonymous: Room,
    viewers: Room,
    operators: Room,
}

/// The connections of one standing.
#[derive(Debug)]
struct Room {
    capacity: usize,
    /// By age: later connections have higher numbers.
    connections: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    addresses: HashMap<IpAddr, BTreeSet<u64>>,
    /// The number of connections of each address.
    counts: BTreeSet<(usize, IpAddr)>,
}

/// The slot of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: ConnectionSlots,
    number: u64,
    address: IpAddr,
    standing: Mutex<Standing>,
    evicted: Arc<Notify>,
}

impl ConnectionSlots {
    /// Slots for this many connections.
    pub fn new(counts: SlotCounts) -> Self {
        let room = |capacity| Room {
            capacity,
            connections: BTreeMap::new(),
            addresses: HashMap::new(),
            counts: BTreeSet::new(),
        };
        ConnectionSlots(Arc::new(Mutex::new(Rooms {
            next: 0,
            silent: room(counts.silent),
            handshakes: room(counts.handshakes),
            anonymous: room(counts.clients),
            viewers: room(counts.clients),
            operators: room(counts.clients),
        })))
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a new connection from this address.
    pub fn enter(&self, address: IpAddr) -> Slot {
        let address = network_of(address);
        let evicted = Arc::new(Notify::new());
        let mut rooms = self.rooms();
        rooms.next += 1;
        let number = rooms.next;
        rooms.silent.enter(number, address, Arc::clone(&evicted));
        drop(rooms);
        Slot {
            slots: self.clone(),
            number,
            address,
            standing: Mutex::new(Standing::Silent),
            evicted,
        }
    }

    /// Evicts up to this many connections of those that have proved least. Returns whether there was one.
    pub fn evict(&self, count: usize) -> bool {
        let mut rooms = self.rooms();
        let mut left = count;
        for standing in [Standing::Silent, Standing::Handshake, Standing::Anonymous] {
            while left > 0 && rooms.of(standing).evict() {
                left -= 1;
            }
        }
        left < count
    }
}

impl Rooms {
    fn of(&mut self, standing: Standing) -> &mut Room {
        match standing {
            Standing::Silent => &mut self.silent,
            Standing::Handshake => &mut self.handshakes,
            Standing::Anonymous => &mut self.anonymous,
            Standing::Viewer => &mut self.viewers,
            Standing::Operator => &mut self.operators,
        }
    }
}

impl Room {
    fn enter(&mut self, number: u64, address: IpAddr, evicted: Arc<Notify>) {
        if self.connections.len() >= self.capacity {
            self.evict();
        }
        self.connections.insert(number, (address, evicted));
        let numbers = self.addresses.entry(address).or_default();
        self.counts.remove(&(numbers.len(), address));
        numbers.insert(number);
        self.counts.insert((numbers.len(), address));
    }

    fn leave(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (address, evicted) = self.connections.remove(&number)?;
        if let Some(numbers) = self.addresses.get_mut(&address) {
            self.counts.remove(&(numbers.len(), address));
            numbers.remove(&number);
            match numbers.len() {
                0 => drop(self.addresses.remove(&address)),
                count => drop(self.counts.insert((count, address))),
            }
        }
        Some(evicted)
    }

    /// Evicts the oldest connection of the address that has most, or the oldest of all if no address has more than one.
    fn evict(&mut self) -> bool {
        let crowded = self.counts.last().filter(|(count, _)| *count > 1);
        let oldest = match crowded {
            Some((_, address)) => (self.addresses.get(address)).and_then(|of| of.first()),
            None => self.connections.keys().next(),
        };
        let Some(evicted) = oldest.copied().and_then(|oldest| self.leave(oldest)) else {
            return false;
        };
        evicted.notify_one();
        true
    }
}

impl Slot {
    /// Moves the connection to the room of a higher standing. A lower one changes nothing.
    pub fn raise(&self, standing: Standing) {
        let mut current = self.standing();
        if standing <= *current {
            return;
        }
        let mut rooms = self.slots.rooms();
        // One that was evicted in between stays so.
        if let Some(evicted) = rooms.of(*current).leave(self.number) {
            rooms.of(standing).enter(self.number, self.address, evicted);
            *current = standing;
        }
    }

    /// Waits until the slot is needed for another connection; this one has to be closed then.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        (self.standing.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let standing = *self.standing();
        self.slots.rooms().of(standing).leave(self.number);
    }
}

/// What counts as one address: with IPv6, a host has a network of 64 bits to itself.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(bits).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: usize) -> ConnectionSlots {
        ConnectionSlots::new(SlotCounts {
            silent: count,
            handshakes: count,
            clients: count,
        })
    }

    async fn is_evicted(slot: &Slot) -> bool {
        tokio::select! {
            biased;
            () = slot.evicted() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn slots_full_room_evicts_the_oldest_of_the_address_that_has_most() {
        let slots = slots(4);
        let come = |address: &str| slots.enter(address.parse().unwrap());
        let other = come("10.0.0.1");
        let first = come("2001:db8::1");
        let second = come("2001:db8::2");
        let third = come("2001:db8::3");
        let newest = come("10.0.0.2");
        assert!(is_evicted(&first).await);
        for kept in [&other, &second, &third, &newest] {
            assert!(!is_evicted(kept).await, "{kept:?}");
        }
    }

    #[tokio::test]
    async fn slots_one_connection_each_evicts_the_oldest_and_reuses_free_ones() {
        let slots = slots(2);
        let come = |address: [u8; 4]| slots.enter(address.into());
        let oldest = come([10, 0, 0, 9]);
        drop(come([10, 0, 0, 5]));
        let middle = come([10, 0, 0, 1]);
        assert!(!is_evicted(&oldest).await, "a slot was free");
        let newest = come([10, 0, 0, 4]);
        assert!(is_evicted(&oldest).await);
        assert!(!is_evicted(&middle).await && !is_evicted(&newest).await);
    }

    #[tokio::test]
    async fn slot_of_a_higher_standing_is_not_taken_by_a_lower_one() {
        let slots = slots(1);
        let operator = slots.enter([10, 0, 0, 1].into());
        for standing in [
            Standing::Handshake,
            Standing::Anonymous,
            Standing::Operator,
            Standing::Silent,
        ] {
            operator.raise(standing);
        }
        for standing in [
            Standing::Silent,
            Standing::Handshake,
            Standing::Anonymous,
            Standing::Viewer,
        ] {
            let flood: Vec<Slot> = (0..10)
                .map(|_| {
                    let slot = slots.enter([10, 0, 0, 1].into());
                    slot.raise(standing);
                    slot
                })
                .collect();
            assert!(is_evicted(&flood[8]).await && !is_evicted(&flood[9]).await);
        }
        assert!(!is_evicted(&operator).await);
    }
}
