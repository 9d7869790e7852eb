//! Figures, as tables for people and as JSON for scripts.

use std::collections::BTreeMap;

use serde::Serialize;

/// One thing that was measured of one contender, in every round.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// The table that it is in.
    pub(crate) table: String,
    /// Its line there.
    pub(crate) what: String,
    /// Of what the numbers are.
    pub(crate) unit: &'static str,
    /// Whose it is.
    pub(crate) contender: String,
    /// One value a round.
    pub(crate) rounds: Vec<f64>,
    /// The one in the middle.
    pub(crate) median: f64,
    /// Answers that were wrong or did not come, in all rounds.
    pub(crate) failed: u64,
}

/// All figures, in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a round's value.
    pub(crate) fn add(
        &mut self,
        table: &str,
        what: &str,
        unit: &'static str,
        contender: &str,
        value: f64,
        failed: u64,
    ) {
        let is_it =
            |figure: &&mut Figure| figure.table == table && figure.what == what && figure.contender == contender;
        if let Some(figure) = self.figures.iter_mut().find(is_it) {
            figure.rounds.push(value);
            figure.failed += failed;
            figure.median = median(&figure.rounds);
            return;
        }
        let (table, what, contender) = (table.to_owned(), what.to_owned(), contender.to_owned());
        self.figures.push(Figure { table, what, unit, contender, rounds: vec![value], median: value, failed });
    }

    /// The whole as JSON.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// A table of Markdown: a line for each thing, a column for each contender, each with its ratio to the `floor`.
    pub(crate) fn table(&self, table: &str) -> String {
        let own: Vec<_> = self.figures.iter().filter(|figure| figure.table == table).collect();
        let mut contenders: Vec<&str> = Vec::new();
        let mut lines: Vec<(&str, &str)> = Vec::new();
        let mut cells: BTreeMap<(&str, &str), &Figure> = BTreeMap::new();
        for figure in own {
            if !contenders.contains(&figure.contender.as_str()) {
                contenders.push(&figure.contender);
            }
            if !lines.contains(&(&figure.what, figure.unit)) {
                lines.push((&figure.what, figure.unit));
            }
            cells.insert((&figure.what, &figure.contender), figure);
        }
        let mut text = format!(
            "\n## {table}\n\n| what | {} |\n|---|{}\n",
            contenders.join(" | "),
            "---|".repeat(contenders.len())
        );
        for (what, unit) in lines {
            let floor = cells.get(&(what, "floor")).map(|figure| figure.median);
            let cell = |contender: &&str| {
                let Some(figure) = cells.get(&(what, contender)) else { return String::new() };
                let mut cell = number(figure.median);
                if let Some(floor) = floor.filter(|floor| *contender != "floor" && *floor > 0.0) {
                    cell.push_str(&format!(" ({:.2} ×)", figure.median / floor));
                }
                if figure.failed > 0 {
                    cell.push_str(&format!(" **{} failed**", figure.failed));
                }
                cell
            };
            let row: Vec<_> = contenders.iter().map(cell).collect();
            text.push_str(&format!("| {what}, {unit} | {} |\n", row.join(" | ")));
        }
        text
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(upper), 0) => sorted.get(middle - 1).map_or(*upper, |lower| f64::midpoint(*lower, *upper)),
        (Some(value), _) => *value,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_shows_medians_ratios_and_failures() {
        let mut report = Report::default();
        for (contender, values) in [("floor", [100.0, 300.0, 200.0]), ("ours", [250.0, 240.0, 1000.0])] {
            for value in values {
                report.add("calls", "p50", "µs", contender, value, u64::from(value == 1000.0));
            }
        }
        let table = report.table("calls");
        assert!(table.contains("| p50, µs | 200.0 | 250.0 (1.25 ×) **1 failed** |"), "{table}");
        assert!(median(&[1.0, 2.0]) == 1.5 && median(&[]).is_nan());
    }
}
