//! The page around the pictures. Knows nothing about how figures are made.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{self, Bar, ENSEMBLE, Line, colour};
use super::figures::Figures;

/// Readable on a telephone and on a wall, by day and by night. Pictures are drawn on white, and turned where it is dark.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #262a33; --soft: #5d6572; --ground: #f3f4f7; --card: #fff; --line: #e2e5eb; --accent: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #a2a9b6; --ground: #14161b; --card: #1a1a1a; --line: #2b2f38; --accent: #56b4e9 }
  figure svg { filter: invert(0.9) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 860px; margin: 0 auto; padding: 32px 16px 64px }
h1 { font-size: 1.9rem; margin: 0 0 4px; letter-spacing: -0.01em }
h2 { font-size: 1.15rem; margin: 0 0 2px }
p { margin: 0 0 10px; color: var(--soft) }
header p { margin-bottom: 24px }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px 22px 14px; margin: 18px 0 }
figure { margin: 6px 0 0 }
figure svg { width: 100%; height: auto; display: block; border-radius: 8px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 16px 18px }
.card strong { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums }
.card span { color: var(--soft); font-size: 0.92rem }
.dot { display: inline-block; width: 0.72em; height: 0.72em; border-radius: 50%; margin-right: 0.5em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left }
th { color: var(--soft); font-weight: 500 }
.wide { overflow-x: auto }
";

/// The whole file.
///
/// # Errors
/// A picture can't be drawn.
pub(super) fn page(figures: &Figures) -> anyhow::Result<String> {
    let sections = [
        section(
            "Perplexity",
            "How many tokens it hesitates between, in the mean: less is better. The bars begin at the best one's half.",
            &perplexity(figures)?,
        ),
        section(
            "Weights",
            "Columns are the weights of the weighted average that are best on all of this text; points and whiskers are mean and \
             standard deviation over the folds, each of which saw only a part. The dashed line is equal weights.",
            &weights(figures)?,
        ),
        values(figures)?,
        section(
            "When members are lost",
            "The perplexity of every set of members that may be left, each with weights of its own.",
            &sets(figures)?,
        ),
        section(
            "Who is sure, and right",
            "On the dashed line somebody who is sure of 60 % is right in 60 %. Below it they are too sure, above it too modest. Each \
             point stands for as many tokens.",
            &calibration(figures)?,
        ),
        section(
            "The vote",
            "How often the vote's winner is the token that came, by threshold, beside the likeliest token of each member and of the \
             weighted average. The dot is the best threshold.",
            &vote(figures)?,
        ),
    ];
    let title = format!("An ensemble of {}", figures.members.len());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " on " (figures.origin) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { (title) }
                        p {
                            (figures.tokens) " tokens of " (figures.origin)
                            @if figures.left_out > 0 { "; " (figures.left_out) " are left out, since not all members answered" }
                        }
                    }
                    (summary(figures))
                    @for section in sections { (section) }
                    (members(figures))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn section(title: &str, says: &str, picture: &str) -> Markup {
    html! {
        section {
            h2 { (title) }
            p { (says) }
            figure role="img" aria-label=(title) { (PreEscaped(picture)) }
        }
    }
}

fn summary(figures: &Figures) -> Markup {
    let card =
        |value: String, says: String| html! { div class="card" { strong { (value) } span { (says) } } };
    let (rule, best) = figures.best_rule().cloned().unwrap_or_default();
    html! {
        div class="cards" {
            (card(format!("{best:.2}"), format!("perplexity of the ensemble ({rule})")))
            @if let Some(member) = figures.best_member() {
                (card(format!("{:.2}", member.perplexity), format!("perplexity of {}, the best member", member.name)))
                (card(
                    format!("{:.1} %", 100.0 * (1.0 - best / member.perplexity)),
                    "less than its best member".to_owned(),
                ))
            }
            (card(
                format!("{:.1} %", 100.0 * figures.calibration.accuracy),
                "of its likeliest tokens come".to_owned(),
            ))
        }
    }
}

fn perplexity(figures: &Figures) -> anyhow::Result<String> {
    let members = figures.members.iter().enumerate().map(|(place, member)| Bar {
        label: member.name.clone(),
        value: member.perplexity,
        shown: shown(member.perplexity),
        colour: colour(place),
    });
    let rules = figures.rules.iter().map(|(name, perplexity)| Bar {
        label: name.replace("weighted_average", "average").replace('_', " "),
        value: *perplexity,
        shown: shown(*perplexity),
        colour: ENSEMBLE,
    });
    let bars: Vec<Bar> = rules.chain(members).collect();
    let least =
        bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(f64::INFINITY, f64::min);
    charts::bars(&bars, if least.is_finite() { least / 2.0 } else { 0.0 }, "perplexity")
}

fn weights(figures: &Figures) -> anyhow::Result<String> {
    let names: Vec<String> = figures.members.iter().map(|member| member.name.clone()).collect();
    let folds: Vec<(f64, f64)> =
        figures.folds.weights.iter().map(|spread| (spread.mean, spread.deviation)).collect();
    charts::weights(&names, &figures.weights, &folds)
}

fn values(figures: &Figures) -> anyhow::Result<Markup> {
    let Some(values) = &figures.values else {
        return Ok(html! {});
    };
    let bars = |value: &dyn Fn(&chorus_tune::MemberValue) -> Option<f64>| -> Vec<Bar> {
        let members = values.members.iter().enumerate();
        let bars = members.filter_map(|(place, member)| {
            let value = value(member)?;
            Some(Bar {
                label: member.name.clone(),
                value,
                shown: format!("{value:.4}"),
                colour: colour(place),
            })
        });
        bars.collect()
    };
    let lost = charts::bars(
        &bars(&|value| Some(value.leave_one_out)),
        0.0,
        "nats a token that are lost without it",
    )?;
    let shapley = bars(&|value| value.shapley);
    let worth = if shapley.is_empty() {
        None
    } else {
        Some(charts::bars(
            &shapley,
            0.0,
            "Shapley value: nats a token; together what the ensemble is ahead of chance",
        )?)
    };
    Ok(html! {
        section {
            h2 { "What each member brings" }
            p {
                "Above, what is lost when one member is left out and the others get the weights that are best for them. Below, each \
                 member's share of what all of them know, in whatever order they came."
            }
            figure role="img" aria-label="What is lost without each member" { (PreEscaped(lost)) }
            @if let Some(worth) = worth {
                figure role="img" aria-label="Shapley value of each member" { (PreEscaped(worth)) }
            }
        }
    })
}

fn sets(figures: &Figures) -> anyhow::Result<String> {
    let count = figures.members.len();
    let sets = figures.sets.sets.iter().map(|set| {
        let names = set.members.iter().filter_map(|member| figures.members.get(*member));
        let names: Vec<&str> = names.map(|member| member.name.as_str()).collect();
        (count - set.members.len(), set.perplexity, names.join(" + "))
    });
    charts::sets(&sets.collect::<Vec<_>>())
}

fn calibration(figures: &Figures) -> anyhow::Result<String> {
    let members = figures.members.iter().enumerate();
    let members = members.map(|(place, member)| (member.name.clone(), colour(place), &member.calibration));
    let ensemble = ("ensemble".to_owned(), ENSEMBLE, &figures.calibration);
    charts::calibration(&members.chain([ensemble]).collect::<Vec<_>>())
}

fn vote(figures: &Figures) -> anyhow::Result<String> {
    let curve = &figures.vote.curve;
    let points = curve.iter().map(|point| (point.threshold, point.accuracy)).collect();
    let ends = |accuracy: f64| {
        let at =
            |point: Option<&chorus_tune::vote::ThresholdPoint>| point.map_or(0.0, |point| point.threshold);
        vec![(at(curve.first()), accuracy), (at(curve.last()), accuracy)]
    };
    let vote = Line { name: "the vote's winner".to_owned(), points, colour: ENSEMBLE, dashed: false };
    let average = Line {
        name: "the weighted average's likeliest".to_owned(),
        points: ends(figures.calibration.accuracy),
        colour: ENSEMBLE,
        dashed: true,
    };
    let members = figures.members.iter().enumerate().map(|(place, member)| Line {
        name: format!("{}'s likeliest", member.name),
        points: ends(member.calibration.accuracy),
        colour: colour(place),
        dashed: true,
    });
    let lines: Vec<Line> = [vote, average].into_iter().chain(members).collect();
    let best = figures.vote.best;
    charts::lines(&lines, ("threshold", "tokens that come"), Some((best.threshold, best.accuracy)))
}

fn members(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "Members" }
            div class="wide" {
                table {
                    thead {
                        tr { th { "member" } th { "network" } th { "parameters" } th { "perplexity" } th { "weight" } th { "right" } }
                    }
                    tbody {
                        @for (place, (member, weight)) in figures.members.iter().zip(&figures.weights).enumerate() {
                            tr {
                                td { span class="dot" style=(dot(place)) {} (member.name) }
                                td { (member.architecture) }
                                td { (member.parameters) }
                                td { (shown(member.perplexity)) }
                                td { (format!("{weight:.3}")) }
                                td { (format!("{:.1} %", 100.0 * member.calibration.accuracy)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn dot(place: usize) -> String {
    let plotters::style::RGBColor(red, green, blue) = colour(place);
    format!("background: rgb({red}, {green}, {blue})")
}

fn shown(perplexity: f64) -> String {
    if perplexity.is_finite() { format!("{perplexity:.2}") } else { "infinite".to_owned() }
}

#[cfg(test)]
mod tests {
    use chorus_tune::vote::{Candidates, TokenCandidates};
    use chorus_tune::{
        Bins, Calibration, EmOptions, LogProbs, Method, cross_validate, equal_shares, learn_sets,
        member_values, unobserved,
    };

    use super::super::figures::Member;
    use super::*;

    fn figures(name: &str) -> Figures {
        let rows = [[0.8_f64, 0.3], [0.2, 0.6], [0.5, 0.4], [0.1, 0.7]].map(|row| row.map(f64::ln));
        let log_probs = LogProbs::new(vec![name.to_owned(), "bass".to_owned()], rows).unwrap();
        let calibration = || Calibration::new(&[(0.8, true), (0.3, false)], Bins::EqualMass(2)).unwrap();
        let sets = learn_sets(&log_probs, &EmOptions::default(), &mut unobserved).unwrap();
        let mut candidates = Candidates::new(2).unwrap();
        let log_probs_of_two: Vec<f64> = [0.6_f64, 0.4, 0.4, 0.6].map(f64::ln).to_vec();
        let token = TokenCandidates { ids: &[1, 2], log_probs: &log_probs_of_two, target: 1 };
        candidates.push(token).unwrap();
        let member = |name: &str| Member {
            name: name.to_owned(),
            architecture: "lstm 1x8".to_owned(),
            parameters: 1000,
            perplexity: 2.5,
            calibration: calibration(),
        };
        Figures {
            origin: "test.txt".to_owned(),
            tokens: 4,
            left_out: 0,
            members: vec![member(name), member("bass")],
            rules: vec![("weighted_average, equal weights".to_owned(), 2.25), ("logit_max".to_owned(), 2.5)],
            weights: vec![0.4, 0.6],
            folds: cross_validate(&log_probs, &Method::default(), 2, &mut unobserved).unwrap(),
            values: member_values(&sets, 10).ok(),
            sets,
            calibration: calibration(),
            vote: candidates.choose_threshold(&[0.1, 0.5], &equal_shares(2)).unwrap(),
        }
    }

    #[test]
    fn a_page_has_every_picture_needs_no_network_and_takes_names_as_they_are() {
        let page = page(&figures("<b>alto</b>")).unwrap();
        assert_eq!(page.matches("<svg").count(), 7);
        for part in ["Perplexity", "What each member brings", "Shapley", "The vote", "2.25", "10.0 %"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<b>alto"), "names are not markup");
        for part in ["<script", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
        // The namespace of SVG is no address that is fetched.
        assert!(page.replace("http://www.w3.org/2000/svg", "").matches("http").count() == 0);
    }

    #[test]
    fn figures_for_programs_have_every_member() {
        let json = figures("alto").json();
        assert_eq!(json["members"][0]["name"], "alto");
        assert_eq!(json["perplexity"]["logit_max"], 2.5);
        assert!(json["members"][1]["shapley"].is_f64());
    }
}
