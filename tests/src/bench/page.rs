//! `docs/benchmarks.md` and its plots, made from the samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::comparisons::{ALL, Kind};
use super::plot;
use super::results::{Comparison, OWN, Results, Series, distinct};
use crate::lab::LabError;

const HEAD: &str = "\
# Benchmarks

Dunlin beside other programs, on one machine and in alternating repetitions. This page and its plots are made by `scripts/bench` from
[the samples](benchmarks/results.json) and nothing else; `tests/tests/benchmarks.rs` checks that they belong together.

```sh
scripts/bench            # everything; root on Debian, where it installs the others
scripts/bench --quick    # few samples, under 5 minutes once it is built
scripts/bench --only deploy
```

Each cell: the median, and in brackets the smallest and the largest sample and their number. *Ratio* is the median of Dunlin divided by the
median of the other. All hosts of a lab share one machine, without added delay or loss, so what waits for timers is shown as it is,
and what needs processors is shown worse than on hosts of their own. Under *how busy* stands the load average at the start and the end, and the share of the time in
which some thread waited for a processor; the measured programs are part of both.
";

/// The page and the plots, by their names below `docs/`.
pub fn files(results: &Results) -> Result<BTreeMap<String, String>, LabError> {
    let mut files = BTreeMap::new();
    let mut page = HEAD.to_owned();
    for kind in ALL {
        section(
            &mut page,
            &mut files,
            kind,
            results.comparisons.get(kind.name()),
        )?;
    }
    files.insert("benchmarks.md".to_owned(), page);
    Ok(files)
}

/// Writes them below `docs/`.
pub fn write(results: &Results, docs: &Path) -> Result<(), LabError> {
    for (name, text) in files(results)? {
        fs::write(docs.join(name), text).map_err(|e| LabError::new("write the page", e))?;
    }
    Ok(())
}

fn section(
    page: &mut String,
    files: &mut BTreeMap<String, String>,
    kind: Kind,
    taken: Option<&Comparison>,
) -> Result<(), LabError> {
    let mut text = format!("\n## {}\n{}\n", kind.title(), kind.story());
    let Some(taken) = taken else {
        text.push_str("\nNot measured yet.\n");
        page.push_str(&text);
        return Ok(());
    };
    for (number, what) in taken.whats().into_iter().enumerate() {
        let series = taken.table(what);
        table(&mut text, &series, kind.axis());
        let name = format!("benchmarks/{}-{}.svg", kind.name(), number + 1);
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "\n![{what}]({name})");
        files.insert(name, plot::draw(&series, kind.axis())?);
    }
    about(&mut text, kind, taken);
    page.push_str(&text);
    Ok(())
}

fn table(text: &mut String, series: &[&Series], axis: &str) {
    let subjects = distinct(series.iter().map(|s| s.subject.as_str()));
    let peers: Vec<&str> = subjects.iter().copied().filter(|s| *s != OWN).collect();
    let Some(first) = series.first() else {
        return;
    };
    let owned = subjects.contains(&OWN);
    let mut head = format!("\n{}, in {}:\n\n| {axis} |", first.what, first.unit);
    let mut rule = "\n|---|".to_owned();
    let ratios = if owned { peers.as_slice() } else { &[] };
    for column in subjects
        .iter()
        .map(|s| (*s).to_owned())
        .chain(ratios.iter().map(|p| format!("{OWN} / {p}")))
    {
        let _infallible = write!(head, " {column} |");
        rule.push_str("---|");
    }
    text.push_str(&head);
    text.push_str(&rule);
    text.push('\n');
    for at in distinct(series.iter().map(|s| s.at.as_str())) {
        let find = |subject: &str| series.iter().find(|s| s.at == at && s.subject == subject);
        let mut row = format!("| {at} |");
        for subject in &subjects {
            row.push_str(&find(subject).map_or_else(|| " – |".to_owned(), |s| cell(s)));
        }
        for peer in ratios {
            let ratio = find(OWN)
                .zip(find(peer))
                .map(|(a, b)| a.median() / b.median());
            row.push_str(&ratio.map_or_else(|| " – |".to_owned(), |r| format!(" {r:.2} |")));
        }
        text.push_str(&row);
        text.push('\n');
    }
}

fn cell(series: &Series) -> String {
    let (low, high) = series.range();
    let count = series.samples.len();
    match count {
        1 => format!(" {} (1) |", number(series.median())),
        _ => format!(
            " **{}** ({} to {}; {count}) |",
            number(series.median()),
            number(low),
            number(high)
        ),
    }
}

fn about(text: &mut String, kind: Kind, taken: &Comparison) {
    let its = &taken.circumstances;
    let versions: Vec<String> = taken
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let few = if its.quick { " (a quick run)" } else { "" };
    let _infallible = writeln!(
        text,
        "\n{}, commit {}{few}, {} s. {}. How busy: load {:.1} to {:.1}, waiting {:.0} %. Again: `scripts/bench --only {}`.",
        its.date,
        its.commit,
        its.seconds,
        versions.join(", "),
        its.load[0],
        its.load[1],
        its.waiting,
        kind.name(),
    );
    for who in &taken.skipped {
        let _infallible = writeln!(text, "\nSkipped: {who}.");
    }
}

/// Three digits, and no more zeros than that takes.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match () {
        () if size >= 1_000.0 => grouped(value.round() as i64),
        () if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        () if size >= 10.0 => format!("{value:.1}"),
        () if size >= 0.1 => format!("{value:.2}"),
        () => format!("{value:.3}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<String> = [0.0, 0.012_3, 0.456, 12.34, 123.4, 1_234.5, 1_234_567.0]
            .into_iter()
            .map(number)
            .collect();
        assert_eq!(
            shown,
            ["0", "0.012", "0.46", "12.3", "123", "1,235", "1,234,567"]
        );
    }

    #[test]
    fn a_table_has_a_ratio_for_each_peer() {
        let mut taken = Comparison::default();
        taken.add("deploy", "s", OWN, 1, 1.0);
        taken.add("deploy", "s", "swarm", 1, 4.0);
        let mut text = String::new();
        table(&mut text, &taken.table("deploy"), "replicas");
        assert!(
            text.contains("| replicas | dunlin | swarm | dunlin / swarm |"),
            "{text}"
        );
        assert!(
            text.contains("| 1 | 1.00 (1) | 4.00 (1) | 0.25 |"),
            "{text}"
        );
    }
}
