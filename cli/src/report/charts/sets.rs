//! The perplexity of every set of members that may be left, by how many are lost. Knows nothing about how it was learned.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{ENSEMBLE, INK, LABEL, SMALL, picture, range, styled};

const HEIGHT: u32 = 400;
/// Pixels from one label to the next.
const LINE: i32 = 15;
/// More names than these would cover each other.
const NAMED: usize = 12;

/// A point for each set: how many are lost, its perplexity, and its members' names.
pub(crate) fn sets(sets: &[(usize, f64, String)]) -> anyhow::Result<String> {
    let most = sets.iter().map(|(lost, ..)| *lost).max().unwrap_or(0);
    let (low, high) = range(sets.iter().map(|(_, perplexity, _)| *perplexity), 1e-3);
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(-0.4..most as f64 + 0.9, low..high)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .x_labels(0)
            .x_label_formatter(&|_| String::new())
            .y_desc("perplexity")
            .y_label_formatter(&|value| format!("{value:.2}"));
        styled(&mut mesh).draw()?;
        let (left, top) = area.get_base_pixel();
        let of_side = |side| SMALL.into_text_style(area).color(&INK).pos(Pos::new(side, VPos::Center));
        let (right, left_side) = (of_side(HPos::Left), of_side(HPos::Right));
        // The last label on the right of each column: one that would cover it stands on the left.
        let mut taken: Vec<Option<i32>> = vec![None; most + 1];
        for (lost, perplexity, members) in sets.iter().filter(|(_, perplexity, _)| perplexity.is_finite()) {
            let point = (*lost as f64, *perplexity);
            chart.draw_series([Circle::new(point, 6, ENSEMBLE.mix(0.75).filled())])?;
            if sets.len() > NAMED {
                continue;
            }
            let (x, y) = chart.backend_coord(&point);
            let (x, y) = (x - left, y - top);
            let last = taken.get_mut(*lost);
            let covers = last.as_ref().is_some_and(|last| last.is_some_and(|last| (last - y).abs() < LINE));
            if covers {
                area.draw_text(members, &left_side, (x - 11, y))?;
            } else {
                area.draw_text(members, &right, (x + 11, y))?;
                if let Some(last) = last {
                    *last = Some(y);
                }
            }
        }
        let below = LABEL.into_text_style(area).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        for lost in 0..=most {
            let text = match lost {
                0 => "all members".to_owned(),
                1 => "one lost".to_owned(),
                _ => format!("{lost} lost"),
            };
            let (x, y) = chart.backend_coord(&(lost as f64, low));
            area.draw_text(&text, &below, (x - left, y - top + 10))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_stand_by_how_many_are_lost() {
        let all = [
            (0, 17.0, "alto+bass".to_owned()),
            (1, 18.0, "alto".to_owned()),
            (1, f64::INFINITY, "bass".to_owned()),
        ];
        let text = sets(&all).unwrap();
        assert!(text.contains("all members") && text.contains("one lost") && text.contains("alto+bass"));
        assert!(sets(&[]).is_ok());
    }
}
