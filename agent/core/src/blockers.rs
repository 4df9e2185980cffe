//! Who blocks whom, as a tree: the sessions that hold everybody up are its roots.
//!
//! Invariants: every session that waits appears; a cycle (a deadlock that PostgreSQL has not broken
//! yet) ends where it closes; so the tree is finite whatever the edges are. PostgreSQL calls a
//! prepared transaction's holder 0 (`pg_blocking_pids`), and several of them look like one.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The process id that stands for a prepared transaction.
pub const PREPARED: i32 = 0;

/// How deep the tree is drawn; queues behind one lock are wide, not deep.
const DEPTH_MAX: usize = 64;

/// A session, and those that wait for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Blocker {
    /// Its process id; 0 is a prepared transaction.
    pub pid: i32,
    /// Others that it waits for beside the one that it stands under.
    pub also_waits_for: Vec<i32>,
    /// It stands elsewhere in the tree with those that wait for it: they are not repeated here.
    pub shown_elsewhere: bool,
    /// Those that wait for it.
    pub waiting: Vec<Blocker>,
}

/// The forest that these edges make. `waits_for` has an entry for each session that waits, with
/// what `pg_blocking_pids` says of it.
pub fn forest(waits_for: &BTreeMap<i32, Vec<i32>>) -> Vec<Blocker> {
    let mut waiting: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for (waiter, holders) in waits_for {
        for holder in holders {
            waiting.entry(*holder).or_default().insert(*waiter);
        }
    }
    let is_blocked = |pid: &i32| waits_for.get(pid).is_some_and(|holders| !holders.is_empty());
    let mut drawing = Drawing { waits_for, waiting: &waiting, drawn: BTreeSet::new() };
    let mut roots: Vec<Blocker> =
        waiting.keys().filter(|pid| !is_blocked(pid)).map(|pid| drawing.draw(*pid, None, 0)).collect();
    // What no root reaches is a cycle; its lowest process id stands for it.
    for pid in waiting.keys() {
        if !drawing.drawn.contains(pid) {
            let root = drawing.draw(*pid, None, 0);
            roots.push(root);
        }
    }
    roots.sort_by_key(|root| (std::cmp::Reverse(root.size()), root.pid));
    roots
}

impl Blocker {
    /// How many sessions stand below it.
    pub fn size(&self) -> usize {
        self.waiting.iter().map(|below| 1 + below.size()).sum()
    }
}

struct Drawing<'a> {
    waits_for: &'a BTreeMap<i32, Vec<i32>>,
    waiting: &'a BTreeMap<i32, BTreeSet<i32>>,
    drawn: BTreeSet<i32>,
}

impl Drawing<'_> {
    fn draw(&mut self, pid: i32, under: Option<i32>, depth: usize) -> Blocker {
        let holders: BTreeSet<i32> = self.waits_for.get(&pid).into_iter().flatten().copied().collect();
        let also_waits_for = holders.into_iter().filter(|holder| Some(*holder) != under).collect();
        let behind = self.waiting.get(&pid);
        // The second time it is only named, which also ends a cycle. What is too deep becomes a root
        // of its own later, since it does not count as drawn.
        let again = depth >= DEPTH_MAX || !self.drawn.insert(pid);
        let waiting = match behind {
            Some(behind) if !again => {
                behind.iter().map(|waiter| self.draw(*waiter, Some(pid), depth + 1)).collect()
            }
            _ => Vec::new(),
        };
        Blocker { pid, also_waits_for, shown_elsewhere: again && behind.is_some(), waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edges(edges: &[(i32, &[i32])]) -> BTreeMap<i32, Vec<i32>> {
        edges.iter().map(|(waiter, holders)| (*waiter, holders.to_vec())).collect()
    }

    fn drawn(blocker: &Blocker) -> String {
        let below: Vec<String> = blocker.waiting.iter().map(drawn).collect();
        let again = if blocker.shown_elsewhere { "!" } else { "" };
        if below.is_empty() {
            format!("{}{again}", blocker.pid)
        } else {
            format!("{}({})", blocker.pid, below.join(" "))
        }
    }

    fn tree(waits: &[(i32, &[i32])]) -> Vec<String> {
        forest(&edges(waits)).iter().map(drawn).collect()
    }

    #[test]
    fn a_chain_is_drawn_from_the_one_that_holds_everybody_up() {
        assert_eq!(tree(&[(2, &[1]), (3, &[2])]), ["1(2(3))"]);
        assert_eq!(tree(&[(2, &[1]), (3, &[1]), (9, &[8])]), ["1(2 3)", "8(9)"]);
        assert!(tree(&[]).is_empty());
    }

    #[test]
    fn one_that_waits_for_two_stands_under_both_and_says_so() {
        let found = forest(&edges(&[(3, &[1, 2]), (4, &[3])]));
        assert_eq!(found.iter().map(drawn).collect::<Vec<_>>(), ["1(3(4))", "2(3!)"]);
        assert_eq!(found[0].waiting[0].also_waits_for, [2]);
    }

    #[test]
    fn a_cycle_ends_where_it_closes() {
        assert_eq!(tree(&[(1, &[2]), (2, &[1])]), ["1(2(1!))"]);
        assert_eq!(tree(&[(1, &[3]), (2, &[1]), (3, &[2]), (7, &[1])]), ["1(2(3(1!)) 7)"]);
        assert_eq!(tree(&[(5, &[5])]), ["5(5!)"]);
    }

    #[test]
    fn a_prepared_transaction_is_a_root_too() {
        assert_eq!(tree(&[(2, &[PREPARED])]), ["0(2)"]);
        // pg_blocking_pids names a holder as often as it has workers.
        assert_eq!(tree(&[(2, &[1, 1, 1])]), ["1(2)"]);
    }

    proptest! {
        #[test]
        fn every_session_that_waits_is_in_the_tree(waits in prop::collection::btree_map(0..12_i32, prop::collection::vec(0..12_i32, 1..4), 0..12)) {
            fn pids(blocker: &Blocker, into: &mut BTreeSet<i32>) {
                into.insert(blocker.pid);
                blocker.waiting.iter().for_each(|below| pids(below, into));
            }
            let mut found = BTreeSet::new();
            forest(&waits).iter().for_each(|root| pids(root, &mut found));
            for waiter in waits.keys() {
                prop_assert!(found.contains(waiter));
            }
        }
    }
}
