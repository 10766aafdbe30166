//! How the cost of a token grows with the number of members: a straight line through what was measured, and how far the
//! points are from it. Knows nothing about how the points were measured.

use serde::Serialize;

/// One measured point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Members.
    pub members: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Sessions in progress at a time.
    pub sessions: usize,
    /// Tokens a second, over all sessions.
    pub tokens_per_second: f64,
    /// Processor time of the coordinator for each token, in microseconds.
    pub cpu_us_per_token: f64,
}

/// cost = `base` + `per_member` * members, for one vocabulary, in microseconds of processor time a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// What a token costs whatever the number of members.
    pub base: f64,
    /// What a member adds.
    pub per_member: f64,
    /// (members, measured / line - 1) of every point: a hidden term shows as a bend, residuals of one sign in the middle
    /// and of the other at the ends.
    pub residuals: Vec<(usize, f64)>,
}

impl Point {
    /// Processor time of the coordinator for each token and member, in microseconds.
    #[must_use]
    pub fn cpu_us_per_token_and_member(&self) -> f64 {
        self.cpu_us_per_token / self.members as f64
    }
}

impl Line {
    /// The line through the points of one vocabulary with the least squares of relative distances, since noise is a share
    /// of a cost and not a number of microseconds. None where there are fewer than two numbers of members.
    ///
    /// ```
    /// use chorus_load::growth::{Line, Point};
    ///
    /// let point = |members, cpu_us_per_token| Point {
    ///     members, cpu_us_per_token, vocabulary: 256, sessions: 16, tokens_per_second: 1.0,
    /// };
    /// let line = Line::through(&[point(1, 15.0), point(3, 25.0), point(8, 50.0)]).unwrap();
    /// assert!((line.base - 10.0).abs() < 1e-9 && (line.per_member - 5.0).abs() < 1e-9);
    /// assert!(line.residuals.iter().all(|(_, residual)| residual.abs() < 1e-9));
    /// ```
    #[must_use]
    pub fn through(points: &[Point]) -> Option<Self> {
        let (mut ones, mut xs, mut ys, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for point in points {
            let (x, y) = (point.members as f64, point.cpu_us_per_token);
            let weight = 1.0 / (y * y);
            ones += weight;
            xs += weight * x;
            ys += weight * y;
            xx += weight * x * x;
            xy += weight * x * y;
        }
        let determinant = ones * xx - xs * xs;
        // Zero but for rounding where all points have the same number of members.
        if determinant.is_nan() || determinant <= 1e-9 * ones * xx {
            return None;
        }
        let per_member = (ones * xy - xs * ys) / determinant;
        let base = (ys - per_member * xs) / ones;
        let residual = |point: &Point| {
            let expected = base + per_member * point.members as f64;
            (point.members, point.cpu_us_per_token / expected - 1.0)
        };
        let vocabulary = points.first()?.vocabulary;
        Some(Self { vocabulary, base, per_member, residuals: points.iter().map(residual).collect() })
    }

    /// The lines of all vocabularies among the points, each with its own points.
    #[must_use]
    pub fn of_each_vocabulary(points: &[Point]) -> Vec<Self> {
        let mut vocabularies: Vec<u32> = points.iter().map(|point| point.vocabulary).collect();
        vocabularies.sort_unstable();
        vocabularies.dedup();
        let own = |vocabulary: u32| -> Vec<Point> {
            points.iter().copied().filter(|point| point.vocabulary == vocabulary).collect()
        };
        vocabularies.into_iter().filter_map(|vocabulary| Self::through(&own(vocabulary))).collect()
    }

    /// The largest distance of a point from the line, as a share of the cost.
    #[must_use]
    pub fn largest_residual(&self) -> f64 {
        self.residuals.iter().map(|(_, residual)| residual.abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(members: usize, vocabulary: u32, cost: f64) -> Point {
        Point { members, vocabulary, sessions: 16, tokens_per_second: 1.0, cpu_us_per_token: cost }
    }

    #[test]
    fn a_hidden_quadratic_term_shows_in_the_residuals() {
        let cost = |members: usize| 20.0 + 5.0 * members as f64 + 0.5 * (members * members) as f64;
        let points: Vec<Point> =
            [1, 3, 8, 16, 64].iter().map(|members| point(*members, 10, cost(*members))).collect();
        let line = Line::through(&points).unwrap();
        assert!(line.largest_residual() > 0.3, "{line:?}");
        let signs: Vec<bool> = line.residuals.iter().map(|(_, residual)| *residual > 0.0).collect();
        assert!(signs[0] && !signs[2] && signs[4], "a bend: {line:?}");
    }

    #[test]
    fn noise_of_large_costs_does_not_decide_about_small_ones() {
        let points = [point(1, 10, 11.0), point(2, 10, 12.0), point(64, 10, 74.0 * 1.2)];
        let line = Line::through(&points).unwrap();
        assert!((line.base + line.per_member - 11.0).abs() < 0.5, "{line:?}");
    }

    #[test]
    fn each_vocabulary_has_its_line_and_one_point_has_none() {
        let points =
            [point(1, 20, 2.0), point(1, 10, 5.0), point(2, 20, 3.0), point(2, 10, 8.0), point(1, 30, 1.0)];
        let lines = Line::of_each_vocabulary(&points);
        let vocabularies: Vec<u32> = lines.iter().map(|line| line.vocabulary).collect();
        assert_eq!(vocabularies, [10, 20]);
        assert!((lines[0].per_member - 3.0).abs() < 1e-9);
        assert_eq!(Line::through(&[point(3, 1, 1.0), point(3, 1, 2.0)]), None);
        assert_eq!(Line::through(&[]), None);
    }
}
