//! `learning-curve.svg`: the losses of a run against its tokens, drawn from `metrics.jsonl`.
//! Knows nothing about training.

use std::path::Path;

use anyhow::{Result, anyhow};
use chorus_model::train::MetricsLine;
use plotters::prelude::*;

use crate::picture_file::write_picture;

const SIZE: (u32, u32) = (900, 540);
const TRAINING: RGBColor = RGBColor(120, 150, 200);
const VALIDATION: RGBColor = RGBColor(200, 80, 40);

/// Draws the training loss and the validation loss in nats per token.
pub(super) fn draw(path: &Path, name: &str, lines: &[MetricsLine]) -> Result<()> {
    let mut picture = String::new();
    draw_into(&mut picture, name, lines)
        .map_err(|error| anyhow!("can't draw the learning curve: {error}"))?;
    write_picture(path, &picture)
}

fn draw_into(
    picture: &mut String,
    name: &str,
    lines: &[MetricsLine],
) -> Result<(), Box<dyn std::error::Error>> {
    let millions = |line: &MetricsLine| line.tokens as f64 / 1e6;
    let training: Vec<(f64, f64)> = lines.iter().map(|line| (millions(line), line.train_nats)).collect();
    let validation: Vec<(f64, f64)> =
        lines.iter().filter_map(|line| Some((millions(line), line.valid_nats?))).collect();
    let heights = || training.iter().chain(&validation).map(|(_, nats)| *nats);
    let (low, high) =
        heights().fold((f64::INFINITY, 0.0f64), |(low, high), nats| (low.min(nats), high.max(nats)));
    if !low.is_finite() {
        return Ok(());
    }
    let right = lines.last().map_or(1.0, millions).max(1e-6);
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{name}: learning curve"), ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..right, (low * 0.97)..(high * 1.03))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("tokens trained on, in millions")
        .y_desc("cross-entropy, nats per token")
        .draw()?;
    let curves = [("training (with dropout)", TRAINING, training), ("validation", VALIDATION, validation)];
    for (label, colour, points) in curves {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_both_curves() {
        let line = |step: u64, valid: Option<f64>| MetricsLine {
            step,
            epoch: 1,
            tokens: step * 1000,
            train_nats: 6.0 / (step as f64),
            soft_nats: None,
            valid_nats: valid,
            valid_perplexity: valid.map(f64::exp),
            learning_rate: 0.1,
            tokens_per_second: 1.0,
        };
        let mut picture = String::new();
        draw_into(&mut picture, "alto", &[line(1, Some(5.0)), line(2, None), line(3, Some(3.0))]).unwrap();
        assert!(picture.contains("alto: learning curve") && picture.trim_end().ends_with("</svg>"));
        for colour in ["#7896C8", "#C85028"] {
            let strokes = picture.matches(&format!("stroke=\"{colour}\"")).count();
            assert_eq!(strokes, 2, "the curve of {colour} and its sample in the legend");
        }
    }
}
