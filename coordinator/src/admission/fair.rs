//! [`FairOrder`]: in which order those that wait are served, fair between callers by what their requests cost.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996) over callers of equal weight: a caller's next request starts, in virtual
//! time, where its last one ended, and the earliest start is served. Among callers that always have something waiting, what
//! is served differs by little more than the largest request of each. Within a caller it is first come, first served.
//!
//! Knows nothing about places, time or what a caller is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// The number of a request: a later one has a larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(super) u64);

/// Requests that wait. Every operation takes time logarithmic in their number.
#[derive(Debug)]
pub(super) struct FairOrder<C> {
    /// Those with something waiting.
    callers: HashMap<C, Queue>,
    /// The same by (start of the next request, turn).
    starts: BTreeMap<(u64, u64), C>,
    /// Where callers are that have nothing waiting now, but have had more than others.
    ahead: HashMap<C, u64>,
    by_end: BTreeSet<(u64, C)>,
    /// In tokens for each caller.
    virtual_time: u64,
    /// The most callers that can wait.
    most: u64,
    turns: u64,
    len: usize,
}

#[derive(Debug)]
struct Queue {
    /// With what each costs.
    requests: BTreeMap<Ticket, u64>,
    start: u64,
    /// Among equal starts, the caller that has waited longer for its turn is served.
    turn: u64,
}

impl<C: Clone + Ord + Hash> FairOrder<C> {
    /// An empty one, in which at most so many requests will wait.
    pub(super) fn new(most: usize) -> Self {
        Self {
            callers: HashMap::new(),
            starts: BTreeMap::new(),
            ahead: HashMap::new(),
            by_end: BTreeSet::new(),
            virtual_time: 0,
            most: (most as u64).max(1),
            turns: 0,
            len: 0,
        }
    }

    /// How many requests wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more request of a caller.
    pub(super) fn push(&mut self, caller: &C, ticket: Ticket, cost: u64) {
        self.len += 1;
        if let Some(queue) = self.callers.get_mut(caller) {
            queue.requests.insert(ticket, cost);
            return;
        }
        let start = match self.ahead.remove(caller) {
            Some(end) => {
                self.by_end.remove(&(end, caller.clone()));
                end.max(self.virtual_time)
            }
            None => self.virtual_time,
        };
        self.line_up(caller.clone(), BTreeMap::from([(ticket, cost)]), start);
    }

    /// The request whose turn it is, and what it costs.
    pub(super) fn first(&self) -> Option<(Ticket, u64)> {
        let (_, caller) = self.starts.first_key_value()?;
        let (ticket, cost) = self.callers.get(caller)?.requests.first_key_value()?;
        Some((*ticket, *cost))
    }

    /// Takes the request whose turn it is: its caller has been served.
    pub(super) fn pop(&mut self) -> Option<Ticket> {
        let (_, caller) = self.starts.pop_first()?;
        let Queue { mut requests, start, .. } = self.callers.remove(&caller)?;
        let (ticket, cost) = requests.pop_first()?;
        self.len -= 1;
        // The virtual time of a server is the start of what it serves. The second term is for callers who come once and never
        // again: if there is no end of them, they all start now, and whoever was served before still has its turn after
        // as many of them as can wait.
        self.virtual_time = start.max(self.virtual_time.saturating_add(cost / self.most));
        let end = start.saturating_add(cost);
        if !requests.is_empty() {
            self.line_up(caller, requests, end);
        } else if self.len > 0 {
            self.ahead.insert(caller.clone(), end);
            self.by_end.insert((end, caller));
        }
        self.forget();
        Some(ticket)
    }

    /// Takes a request out that will not be served: its caller does not pay for it.
    pub(super) fn remove(&mut self, caller: &C, ticket: Ticket) {
        let Some(queue) = self.callers.get_mut(caller) else { return };
        if queue.requests.remove(&ticket).is_none() {
            return;
        }
        self.len -= 1;
        if queue.requests.is_empty() {
            let (start, turn) = (queue.start, queue.turn);
            self.callers.remove(caller);
            self.starts.remove(&(start, turn));
            if start > self.virtual_time {
                self.ahead.insert(caller.clone(), start);
                self.by_end.insert((start, caller.clone()));
            }
        }
        self.forget();
    }

    fn line_up(&mut self, caller: C, requests: BTreeMap<Ticket, u64>, start: u64) {
        let turn = self.turns;
        self.turns += 1;
        self.starts.insert((start, turn), caller.clone());
        self.callers.insert(caller, Queue { requests, start, turn });
    }

    /// Forgets whom the others have caught up with; everybody, once nobody waits and nothing was taken from anyone.
    fn forget(&mut self) {
        if self.len == 0 {
            self.ahead.clear();
            self.by_end.clear();
            self.virtual_time = 0;
        }
        while let Some((end, _)) = self.by_end.first()
            && *end <= self.virtual_time
        {
            if let Some((_, caller)) = self.by_end.pop_first() {
                self.ahead.remove(&caller);
            }
        }
    }

    /// Callers that are remembered.
    #[cfg(test)]
    fn remembered(&self) -> usize {
        assert_eq!(self.ahead.len(), self.by_end.len());
        assert_eq!(self.callers.len(), self.starts.len());
        self.callers.len() + self.ahead.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keeps so many requests of each caller waiting, and serves.
    struct Backlog {
        order: FairOrder<usize>,
        of: HashMap<Ticket, (usize, u64)>,
        served: Vec<u64>,
        tickets: u64,
    }

    impl Backlog {
        fn new(callers: usize, most: usize) -> Self {
            let (order, of) = (FairOrder::new(most), HashMap::new());
            Self { order, of, served: vec![0; callers], tickets: 0 }
        }

        fn push(&mut self, caller: usize, cost: u64) -> Ticket {
            let ticket = Ticket(self.tickets);
            self.tickets += 1;
            self.order.push(&caller, ticket, cost);
            self.of.insert(ticket, (caller, cost));
            ticket
        }

        fn serve(&mut self) -> Option<(usize, u64)> {
            let first = self.order.first();
            let ticket = self.order.pop();
            assert_eq!(first.map(|(ticket, _)| ticket), ticket);
            let (caller, cost) = self.of.remove(&ticket?).expect("it waited");
            self.served[caller] += cost;
            Some((caller, cost))
        }
    }

    #[test]
    fn a_caller_with_ten_times_as_many_requests_gets_half() {
        let mut backlog = Backlog::new(2, 1000);
        (0..1000).for_each(|_| _ = backlog.push(0, 40));
        (0..100).for_each(|_| _ = backlog.push(1, 40));
        let order: Vec<usize> = (0..200).map(|_| backlog.serve().unwrap().0).collect();
        assert_eq!(backlog.served, [4000, 4000]);
        assert!(order.chunks(2).all(|pair| pair == [0, 1]), "in turns: {order:?}");
    }

    #[test]
    fn who_has_nothing_waiting_between_two_requests_pays_for_the_first_all_the_same() {
        let mut backlog = Backlog::new(2, 100);
        (0..100).for_each(|_| _ = backlog.push(0, 10));
        // Large ones, one at a time.
        backlog.push(1, 200);
        let mut large = 0;
        for _ in 0..80 {
            if backlog.serve().unwrap().0 == 1 {
                large += 1;
                backlog.push(1, 200);
            }
        }
        assert_eq!(large, 4, "one for each 20 small ones");
    }

    #[test]
    fn within_a_caller_it_is_first_come_first_served() {
        let mut backlog = Backlog::new(1, 10);
        let tickets: Vec<Ticket> = [7, 1, 5].into_iter().map(|cost| backlog.push(0, cost)).collect();
        let served: Vec<Ticket> = std::iter::from_fn(|| backlog.order.pop()).collect();
        assert_eq!(served, tickets);
    }

    #[test]
    fn what_leaves_unserved_costs_its_caller_nothing() {
        let mut backlog = Backlog::new(2, 100);
        // All of caller 1 gives up again and again, while caller 0 is served.
        (0..50).for_each(|_| _ = backlog.push(0, 10));
        for _ in 0..20 {
            let given_up: Vec<Ticket> = (0..5).map(|_| backlog.push(1, 1000)).collect();
            given_up.into_iter().for_each(|ticket| backlog.order.remove(&1, ticket));
            assert_eq!(backlog.serve(), Some((0, 10)));
        }
        backlog.push(1, 10);
        backlog.push(1, 10);
        let next: Vec<usize> = (0..4).map(|_| backlog.serve().unwrap().0).collect();
        assert_eq!(next.iter().filter(|caller| **caller == 1).count(), 2, "{next:?}");
    }

    #[test]
    fn no_number_of_callers_that_come_once_starves_one_that_stays() {
        let most = 20;
        let mut backlog = Backlog::new(100_001, most);
        (0..3).for_each(|_| _ = backlog.push(100_000, 40));
        (0..most - 3).for_each(|caller| _ = backlog.push(caller, 40));
        let (mut waited, mut longest) = (0, 0);
        for newcomer in most - 3..100_000 {
            let (caller, _) = backlog.serve().unwrap();
            waited = if caller == 100_000 { 0 } else { waited + 1 };
            longest = longest.max(waited);
            let next = if caller == 100_000 { caller } else { newcomer };
            backlog.push(next, 40);
            assert!(backlog.order.remembered() <= 4 * most, "{}", backlog.order.remembered());
        }
        assert!(longest <= 2 * most, "{longest} were served before it");
    }

    proptest! {
        /// Whatever the callers' requests cost and however many each keeps waiting: what two of them have got differs by
        /// little more than a request of each.
        #[test]
        fn backlogged_callers_get_the_same(
            depths in prop::collection::vec(1_usize..30, 2..6),
            costs in prop::collection::vec(1_u64..500, 7..40),
        ) {
            let callers = depths.len();
            let mut backlog = Backlog::new(callers, 200);
            let mut next = costs.iter().copied().cycle();
            for (caller, depth) in depths.iter().enumerate() {
                (0..*depth).for_each(|_| _ = backlog.push(caller, next.next().unwrap()));
            }
            for _ in 0..2000 {
                let (caller, _) = backlog.serve().unwrap();
                backlog.push(caller, next.next().unwrap());
                let (least, most) = (backlog.served.iter().min(), backlog.served.iter().max());
                prop_assert!(most.unwrap() - least.unwrap() <= 2 * 500, "{:?}", backlog.served);
            }
        }

        /// Every request that does not leave is served once, and nothing is remembered in the end.
        #[test]
        fn nothing_is_lost_and_nothing_served_twice(
            steps in prop::collection::vec((0_usize..4, 0_usize..5, 1_u64..100), 1..200),
        ) {
            let mut backlog = Backlog::new(5, 50);
            let (mut pushed, mut gone) = (BTreeSet::new(), BTreeSet::new());
            for (what, caller, cost) in steps {
                match what {
                    0 => if let Some(ticket) = backlog.order.pop() {
                        prop_assert!(gone.insert(ticket));
                    },
                    1 => {
                        let waiting: Vec<Ticket> = pushed.difference(&gone).copied().collect();
                        if let Some(ticket) = waiting.get(cost as usize % waiting.len().max(1)) {
                            backlog.order.remove(&backlog.of[ticket].0, *ticket);
                            gone.insert(*ticket);
                        }
                    }
                    _ => _ = pushed.insert(backlog.push(caller, cost)),
                }
                prop_assert_eq!(backlog.order.len(), pushed.len() - gone.len());
            }
            while let Some(ticket) = backlog.order.pop() {
                prop_assert!(gone.insert(ticket));
            }
            prop_assert_eq!(pushed, gone);
            prop_assert_eq!(backlog.order.remembered(), 0);
        }
    }
}
