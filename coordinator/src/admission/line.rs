//! [`Line`]: who may run, who waits for it, and who is turned away. Time is an argument.
//!
//! A request *arrives* before anything is done for it, *enters* when it is checked and its cost is known, is *admitted* when
//! its turn has come and there is room, and *leaves*, from wherever it stands. Between arrival and admission it is in the
//! line, which is bounded.
//!
//! Knows nothing about what requests are, about tasks that wait, or about how a refusal is put.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::fair::{FairOrder, Ticket};
use super::pace::Pace;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Requests that run at a time.
    pub(super) places: usize,
    /// Tokens of all that run. One that costs more by itself runs when it is alone.
    pub(super) tokens: u64,
    /// Requests in the line while there is no place for them.
    pub(super) waiting: usize,
}

/// All requests from arrival to end.
#[derive(Debug)]
pub(super) struct Line<C> {
    room: Room,
    requests: HashMap<Ticket, Request<C>>,
    next_ticket: u64,
    running: usize,
    tokens: u64,
    /// Of those in the line, the ones that have entered.
    order: FairOrder<C>,
    /// Of everybody with a request in the line, all of them: the last one is the youngest.
    in_line: HashMap<C, BTreeSet<Ticket>>,
    /// The same by number of requests.
    by_number: BTreeSet<(usize, C)>,
    /// Requests in the line.
    len: usize,
    pace: Pace,
}

#[derive(Debug)]
struct Request<C> {
    caller: C,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It is being checked.
    Arrived,
    /// It waits for its turn.
    Entered,
    Running {
        cost: u64,
    },
}

/// A request that was let into the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) ticket: Ticket,
    /// Who had to leave for it: the youngest of the caller with the most requests in the line.
    pub(super) displaced: Option<Ticket>,
}

/// The line is full, and nobody in it has more requests there than the newcomer's caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Requests that run.
    pub(super) running: usize,
    /// What they cost.
    pub(super) tokens: u64,
    /// Requests in the line.
    pub(super) waiting: usize,
}

impl<C: Clone + Ord + Hash> Line<C> {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            requests: HashMap::new(),
            next_ticket: 0,
            running: 0,
            tokens: 0,
            order: FairOrder::new(room.waiting),
            in_line: HashMap::new(),
            by_number: BTreeSet::new(),
            len: 0,
            pace: Pace::default(),
        }
    }

    /// A request comes. It is let in while there is room in the line, or in place of one of a caller who has at least two
    /// more there.
    pub(super) fn arrive(&mut self, caller: C, now: Instant) -> Result<Arrival, Full> {
        let mut displaced = None;
        if self.len >= self.most_in_line() {
            let own = self.in_line.get(&caller).map_or(0, BTreeSet::len);
            let (most, other) = self.by_number.last().ok_or(Full)?;
            if *most <= own + 1 {
                return Err(Full);
            }
            displaced = self.in_line.get(other).and_then(BTreeSet::last).copied();
            let displaced = displaced.ok_or(Full)?;
            self.leave(displaced, now);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.join(&caller, ticket);
        self.requests.insert(ticket, Request { caller, stage: Stage::Arrived });
        Ok(Arrival { ticket, displaced })
    }

    /// A request in the line is checked, and costs so many tokens. Nothing happens where it has left in the meantime.
    pub(super) fn enter(&mut self, ticket: Ticket, cost: u64, now: Instant) {
        if let Some(Request { caller, stage: stage @ Stage::Arrived }) = self.requests.get_mut(&ticket) {
            *stage = Stage::Entered;
            self.order.push(caller, ticket, cost);
            self.pace.waited_for(true, now);
        }
    }

    /// Admits the request whose turn it is, if there is one and there is room for it. Nobody overtakes it, so that small
    /// requests never keep a large one out.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Ticket> {
        let (ticket, cost) = self.order.first()?;
        let fits = self.tokens.saturating_add(cost) <= self.room.tokens || self.running == 0;
        if self.running >= self.room.places || !fits {
            return None;
        }
        self.order.pop();
        self.pace.waited_for(!self.order.is_empty(), now);
        self.running += 1;
        self.tokens = self.tokens.saturating_add(cost);
        let request = self.requests.get_mut(&ticket)?;
        request.stage = Stage::Running { cost };
        let caller = request.caller.clone();
        self.part(&caller, ticket);
        Some(ticket)
    }

    /// A request is over, has given up, or was turned away; a second time nothing happens.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant) {
        let Some(Request { caller, stage }) = self.requests.remove(&ticket) else { return };
        match stage {
            Stage::Arrived => self.part(&caller, ticket),
            Stage::Entered => {
                self.part(&caller, ticket);
                self.order.remove(&caller, ticket);
                self.pace.waited_for(!self.order.is_empty(), now);
            }
            Stage::Running { cost } => {
                self.running -= 1;
                self.tokens -= cost;
                self.pace.ended(now);
            }
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { running: self.running, tokens: self.tokens, waiting: self.len }
    }

    /// When to come again: when all that are in the line now will have had their turn, at the pace of late.
    pub(super) fn come_again_after(&self) -> Duration {
        self.pace.time_of(self.len + 1)
    }

    /// While somebody waits in spite of a free place, for want of tokens, whoever comes waits too.
    fn most_in_line(&self) -> usize {
        let free = if self.order.is_empty() { self.room.places - self.running } else { 0 };
        self.room.waiting.saturating_add(free)
    }

    fn join(&mut self, caller: &C, ticket: Ticket) {
        self.change(caller, |own| own.insert(ticket));
        self.len += 1;
    }

    fn part(&mut self, caller: &C, ticket: Ticket) {
        self.change(caller, |own| own.remove(&ticket));
        self.len -= 1;
    }

    fn change(&mut self, caller: &C, change: impl FnOnce(&mut BTreeSet<Ticket>) -> bool) {
        let mut own = self.in_line.remove(caller).unwrap_or_default();
        self.by_number.remove(&(own.len(), caller.clone()));
        change(&mut own);
        if !own.is_empty() {
            self.by_number.insert((own.len(), caller.clone()));
            self.in_line.insert(caller.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Scene {
        line: Line<&'static str>,
        now: Instant,
        admitted: Vec<Ticket>,
    }

    impl Scene {
        fn new(places: usize, tokens: u64, waiting: usize) -> Self {
            let line = Line::new(Room { places, tokens, waiting });
            Self { line, now: Instant::now(), admitted: Vec::new() }
        }

        /// A request that is checked at once.
        fn ask(&mut self, caller: &'static str, cost: u64) -> Result<Arrival, Full> {
            let arrival = self.line.arrive(caller, self.now)?;
            self.line.enter(arrival.ticket, cost, self.now);
            self.admit();
            Ok(arrival)
        }

        fn ticket(&mut self, caller: &'static str, cost: u64) -> Ticket {
            self.ask(caller, cost).unwrap().ticket
        }

        /// As after every change.
        fn admit(&mut self) {
            self.admitted.extend(std::iter::from_fn(|| self.line.admit(self.now)));
        }

        /// Who was admitted since the last time.
        fn admitted(&mut self) -> Vec<Ticket> {
            self.admit();
            std::mem::take(&mut self.admitted)
        }

        fn standing(&self) -> (usize, u64, usize) {
            let Standing { running, tokens, waiting } = self.line.standing();
            (running, tokens, waiting)
        }
    }

    #[test]
    fn places_are_given_first_and_then_the_line_fills() {
        let mut scene = Scene::new(2, 1000, 1);
        let all: Vec<Ticket> = (0..3).map(|_| scene.ticket("a", 10)).collect();
        assert_eq!(scene.admitted(), all[..2]);
        assert_eq!(scene.ask("a", 10), Err(Full));
        assert_eq!(scene.standing(), (2, 20, 1));
        scene.line.leave(all[0], scene.now);
        assert_eq!(scene.admitted(), all[2..]);
        scene.ticket("a", 10);
        assert_eq!(scene.standing(), (2, 20, 1));
    }

    #[test]
    fn requests_that_are_being_checked_count_against_the_line() {
        let mut scene = Scene::new(1, 1000, 1);
        let first = scene.line.arrive("a", scene.now).unwrap().ticket;
        let second = scene.line.arrive("a", scene.now).unwrap().ticket;
        assert_eq!(scene.line.arrive("a", scene.now), Err(Full));
        // The second is checked first, and runs first.
        scene.line.enter(second, 5, scene.now);
        assert_eq!(scene.admitted(), [second]);
        assert_eq!(scene.line.arrive("a", scene.now), Err(Full));
        scene.line.leave(first, scene.now);
        assert!(scene.line.arrive("a", scene.now).is_ok());
    }

    #[test]
    fn without_a_line_nobody_waits() {
        let mut scene = Scene::new(1, 1000, 0);
        let first = scene.ticket("a", 1);
        assert_eq!(scene.admitted(), [first]);
        assert_eq!(scene.ask("b", 1), Err(Full));
        scene.line.leave(first, scene.now);
        assert!(scene.ask("b", 1).is_ok());
    }

    #[test]
    fn a_newcomer_with_little_in_the_line_displaces_the_youngest_of_the_caller_with_most() {
        let mut scene = Scene::new(1, 1000, 4);
        let of_a: Vec<Ticket> = (0..5).map(|_| scene.ticket("a", 1)).collect();
        assert_eq!(scene.admitted(), of_a[..1]);
        assert_eq!(scene.ask("a", 1), Err(Full), "nobody has more there than itself");
        let first = scene.ask("b", 1).unwrap();
        assert_eq!(first.displaced, Some(of_a[4]));
        let second = scene.ask("b", 1).unwrap();
        assert_eq!(second.displaced, Some(of_a[3]));
        assert_eq!(scene.ask("b", 1), Err(Full), "both have two");
        assert_eq!(scene.ask("c", 1).unwrap().displaced, Some(second.ticket), "of two with as many, one");
        assert_eq!(scene.standing(), (1, 1, 4));
        // Who was displaced knows it, and leaves once more.
        scene.line.leave(of_a[4], scene.now);
        scene.line.enter(of_a[4], 1, scene.now);
        assert_eq!(scene.standing(), (1, 1, 4));
    }

    #[test]
    fn tokens_are_bounded_nobody_overtakes_and_what_is_too_large_runs_alone() {
        let mut scene = Scene::new(10, 100, 10);
        let [small, large, other] =
            [("a", 60), ("b", 500), ("c", 1)].map(|(who, cost)| scene.ticket(who, cost));
        assert_eq!(scene.admitted(), [small]);
        assert_eq!(scene.standing(), (1, 60, 2));
        scene.line.leave(small, scene.now);
        assert_eq!(scene.admitted(), [large]);
        assert_eq!(scene.standing(), (1, 500, 1));
        scene.line.leave(large, scene.now);
        assert_eq!(scene.admitted(), [other]);
    }

    #[test]
    fn while_tokens_are_short_the_line_is_no_longer_than_it_may_be_although_places_are_free() {
        let mut scene = Scene::new(100, 10, 2);
        let first = scene.ticket("a", 10);
        assert_eq!(scene.admitted(), [first]);
        (0..2).for_each(|_| _ = scene.ticket("a", 10));
        assert_eq!(scene.ask("a", 10), Err(Full));
    }

    #[test]
    fn who_is_refused_may_come_again_when_the_line_has_had_its_turn() {
        let mut scene = Scene::new(1, 1000, 50);
        let mut running = scene.ticket("a", 1);
        (0..50).for_each(|_| _ = scene.ticket("a", 1));
        assert_eq!(scene.line.come_again_after(), Duration::from_secs(1), "nothing is known");
        for _ in 0..100 {
            scene.now += Duration::from_millis(40);
            scene.line.leave(running, scene.now);
            running = scene.admitted().pop().unwrap();
            scene.ticket("a", 1);
        }
        let after = scene.line.come_again_after().as_secs_f64();
        assert!((after - 51.0 * 0.04).abs() < 0.01, "{after}");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Arrive(usize),
        Enter(usize, u64),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..5).prop_map(Step::Arrive),
            4 => (0_usize..40, 1_u64..120).prop_map(|(which, cost)| Step::Enter(which, cost)),
            3 => (0_usize..40).prop_map(Step::Leave),
        ]
    }

    proptest! {
        /// Whatever happens: the bounds hold, nobody is counted twice or forgotten, and a place that is free is not kept
        /// from whoever fits.
        #[test]
        fn the_bounds_hold_and_the_books_balance(
            steps in prop::collection::vec(step(), 1..300),
            places in 1_usize..6, tokens in 50_u64..300, waiting in 0_usize..8,
        ) {
            let room = Room { places, tokens, waiting };
            let (mut line, now) = (Line::new(room), Instant::now());
            let mut alive: Vec<(Ticket, Option<u64>)> = Vec::new();
            let mut running: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Arrive(caller) => if let Ok(arrival) = line.arrive(caller, now) {
                        if let Some(displaced) = arrival.displaced {
                            prop_assert!(!running.contains(&displaced));
                            alive.retain(|(ticket, _)| *ticket != displaced);
                        }
                        alive.push((arrival.ticket, None));
                    },
                    Step::Enter(which, cost) => {
                        let count = alive.len().max(1);
                        if let Some((ticket, known @ None)) = alive.get_mut(which % count) {
                            *known = Some(cost);
                            line.enter(*ticket, cost, now);
                        }
                    }
                    Step::Leave(which) => if !alive.is_empty() {
                        let (ticket, _) = alive.remove(which % alive.len());
                        running.retain(|other| *other != ticket);
                        line.leave(ticket, now);
                    },
                }
                while let Some(ticket) = line.admit(now) {
                    prop_assert!(alive.iter().any(|(known, cost)| *known == ticket && cost.is_some()));
                    running.push(ticket);
                }
                let Standing { running: count, tokens: used, waiting: in_line } = line.standing();
                prop_assert_eq!(count, running.len());
                prop_assert_eq!(count + in_line, alive.len());
                prop_assert!(count <= places && (used <= tokens || count == 1));
                prop_assert!(count + in_line <= places + waiting);
                let cost = |ticket: &Ticket| alive.iter().find(|(known, _)| known == ticket).unwrap().1.unwrap();
                prop_assert_eq!(used, running.iter().map(cost).sum::<u64>());
                let waits = alive.iter().any(|(ticket, cost)| cost.is_some() && !running.contains(ticket));
                prop_assert!(!waits || count > 0, "somebody waits for nobody");
            }
            alive.iter().for_each(|(ticket, _)| line.leave(*ticket, now));
            prop_assert_eq!(line.standing(), Standing { running: 0, tokens: 0, waiting: 0 });
            prop_assert!(line.requests.is_empty() && line.in_line.is_empty() && line.by_number.is_empty());
        }

        /// Two callers, one sending ten times as much as the other: each gets half of the places that become free.
        #[test]
        fn a_flood_takes_no_more_than_its_half(places in 1_usize..8, waiting in 8_usize..40, cost in 1_u64..50) {
            let room = Room { places, tokens: u64::MAX, waiting };
            let (mut line, now) = (Line::new(room), Instant::now());
            let (mut running, mut served) = (std::collections::VecDeque::new(), [0_usize; 2]);
            let mut of = HashMap::new();
            for round in 0..500 {
                for sent in 0..11 {
                    let caller = usize::from(sent == 10);
                    if let Ok(arrival) = line.arrive(caller, now) {
                        line.enter(arrival.ticket, cost, now);
                        of.insert(arrival.ticket, caller);
                    }
                }
                while let Some(ticket) = line.admit(now) {
                    // Before the line is full for the first time there is nothing to share.
                    if round > 50 {
                        served[of[&ticket]] += 1;
                    }
                    running.push_back(ticket);
                }
                // So what the other caller sends is at least its half.
                (0..2.min(running.len())).for_each(|_| line.leave(running.pop_front().unwrap(), now));
            }
            prop_assert!(served[1].abs_diff(served[0]) <= 2 * places + 2, "{:?}", served);
        }
    }
}
