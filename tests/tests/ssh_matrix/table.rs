//! The table in the documentation, which is what the test saw.

use super::cells::{ACCOUNT, CELLS, Cell, ROOT};
use std::path::PathBuf;

const BEGIN: &str = "<!-- The test ssh_matrix writes this table: UPDATE_DOCS=1 cargo test --test e2e ssh_matrix -->\n";
const END: &str = "<!-- end of the table -->\n";

/// Compares the table with the cells that were looked at, or writes it where all of them were and `UPDATE_DOCS` is set.
pub(super) fn compare(numbers: &[usize]) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../controller/SSH.md"));
    let text = std::fs::read_to_string(&path).expect("controller/SSH.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (table, after) = rest.split_once(END).expect("the table ends");
    let whole = numbers.len() == CELLS.len();
    if whole && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", rendered())).expect("controller/SSH.md");
        return;
    }
    let hint = "controller/SSH.md is not what was seen: run the test again with UPDATE_DOCS=1";
    if whole {
        assert!(table == rendered(), "{hint}");
    }
    for number in numbers {
        let row = row(*number, &CELLS[*number]);
        assert!(table.contains(&row), "{hint}\n{row}");
    }
}

fn rendered() -> String {
    let head = "| | server | `ssh.legacy` | login | root | login shell | host or way | what comes of it |\n|---|---|---|---|---|---|---|---|\n";
    let rows: String = CELLS.iter().enumerate().map(|(number, cell)| row(number, cell)).collect();
    format!("\n{head}{rows}\n")
}

fn row(number: usize, cell: &Cell) -> String {
    let Cell { server, legacy, login, root, shell, host, result } = cell;
    let legacy = match *legacy {
        "" => "–".to_owned(),
        list => list.trim_matches(['[', ']']).to_owned(),
    };
    let host = if host.is_empty() { "–" } else { host };
    let result = match *result {
        ACCOUNT | ROOT => (*result).to_owned(),
        refusal => format!("refused: “… {refusal} …”"),
    };
    format!("| {} | {server} | {legacy} | {login} | {root} | {shell} | {host} | {result} |\n", number + 1)
}
