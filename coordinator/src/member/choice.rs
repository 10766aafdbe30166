//! Which of several replicas gets the next session: the less loaded of two that chance picks.
//!
//! Pure: chance is an argument. M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001: nearly as even
//! as the least loaded of all, and many coordinators that choose by what each of them knows do not all choose the same one.

use rand::{SeedableRng as _, rngs::SmallRng, seq::index};

/// The place of the chosen one among these loads; none where there are none. The same `chance` chooses the same.
pub(super) fn less_loaded_of_two(loads: &[u32], chance: u64) -> Option<usize> {
    let mut random = SmallRng::seed_from_u64(chance);
    let two = index::sample(&mut random, loads.len(), loads.len().min(2));
    two.into_iter().min_by_key(|place| loads.get(*place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_none_there_is_none_and_of_one_there_is_that_one() {
        assert_eq!(less_loaded_of_two(&[], 1), None);
        assert_eq!(less_loaded_of_two(&[9], 1), Some(0));
    }

    #[test]
    fn of_two_it_is_always_the_less_loaded() {
        for chance in 0..1000 {
            assert_eq!(less_loaded_of_two(&[3, 2], chance), Some(1));
            assert_eq!(less_loaded_of_two(&[2, 3], chance), Some(0));
        }
    }

    #[test]
    fn everyone_is_chosen_but_the_most_loaded_and_loads_stay_even() {
        let mut chosen = [0_u32; 5];
        for chance in 0..5000 {
            chosen[less_loaded_of_two(&[0, 0, 0, 0, 7], chance).unwrap()] += 1;
        }
        assert_eq!(chosen[4], 0);
        assert!(chosen[..4].iter().all(|count| (1100..1400).contains(count)), "{chosen:?}");

        let mut loads = [0; 10];
        for chance in 0..10_000 {
            loads[less_loaded_of_two(&loads, chance).unwrap()] += 1;
        }
        assert!(loads.iter().all(|load| (997..=1003).contains(load)), "{loads:?}");
    }
}
