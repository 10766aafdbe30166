//! The search for the most that a server answers: twice as many callers, until more of them get no more answers. Knows nothing
//! about how so many callers are tried.

/// Doubles the callers of a closed loop while that helps.
///
/// ```
/// use chorus_load::plateau::Plateau;
///
/// let mut search = Plateau::new(4);
/// while let Some(callers) = search.next_callers() {
///     search.record((callers as f64 * 10.0).min(200.0));
/// }
/// assert_eq!(search.highest(), Some((32, 200.0)));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plateau {
    first: usize,
    tried: Vec<(usize, f64)>,
}

/// What is more by less than this factor is no more: noise is not much smaller.
const MORE: f64 = 1.03;
/// Doublings in a row after which more callers are not expected to help any more.
const PATIENCE: usize = 2;
/// More callers are not tried.
const MOST: usize = 4096;

impl Plateau {
    /// Begins with so many callers, at least one.
    #[must_use]
    pub fn new(first: usize) -> Self {
        Self { first: first.clamp(1, MOST), tried: Vec::new() }
    }

    /// The number of callers to try; none when the search is over.
    #[must_use]
    pub fn next_callers(&self) -> Option<usize> {
        let Some((last, _)) = self.tried.last() else { return Some(self.first) };
        let (mut best, mut since) = (0.0, 0);
        for (_, answers) in &self.tried {
            if *answers > best * MORE {
                (best, since) = (*answers, 0);
            } else {
                since += 1;
            }
        }
        Some(last * 2).filter(|next| since < PATIENCE && *next <= MOST)
    }

    /// How many answers a second [`Plateau::next_callers`] got.
    pub fn record(&mut self, answers: f64) {
        if let Some(callers) = self.next_callers() {
            self.tried.push((callers, answers));
        }
    }

    /// The most answers a second, and with how many callers they came.
    #[must_use]
    pub fn highest(&self) -> Option<(usize, f64)> {
        self.tried
            .iter()
            .copied()
            .filter(|(_, answers)| *answers > 0.0)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(first: usize, answers: impl Fn(usize) -> f64) -> (Vec<usize>, Option<(usize, f64)>) {
        let mut search = Plateau::new(first);
        let callers = std::iter::from_fn(|| {
            let callers = search.next_callers()?;
            search.record(answers(callers));
            Some(callers)
        });
        (callers.collect(), search.highest())
    }

    #[test]
    fn it_ends_after_two_doublings_that_did_not_help() {
        let (callers, highest) =
            tried(8, |callers| [90.0, 100.0, 102.0, 101.0][(callers.ilog2() as usize - 3).min(3)]);
        assert_eq!(callers, [8, 16, 32, 64]);
        assert_eq!(highest, Some((32, 102.0)));
        // One bad moment does not end it.
        let (callers, highest) = tried(8, |callers| if callers == 32 { 20.0 } else { callers as f64 });
        assert_eq!((callers.last(), highest), (Some(&4096), Some((4096, 4096.0))));
    }

    #[test]
    fn where_nothing_is_answered_there_is_no_highest() {
        assert_eq!(tried(1, |_| 0.0), (vec![1, 2], None));
        assert_eq!(tried(1_000_000, |_| 0.0), (vec![4096], None));
    }
}
