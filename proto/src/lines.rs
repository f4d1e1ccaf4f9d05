//! The lines of a host's journal. Each is one [`Record`] as JSON with a last field `sum` over what stands before it: a byte that
//! changed on disk is noticed, instead of being taken for another step or another outcome. Who reads the lines for something else can
//! leave the sum alone.

use crate::host::Record;

/// What stands between a record and its sum.
const MARK: &[u8] = b",\"sum\":\"";
/// What stands behind the sum.
const END: &[u8] = b"\"}";
/// How many digits a sum has.
const DIGITS: usize = 16;

/// A line of a host's journal was whole once, and is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the host's journal is damaged")]
pub struct Damaged {
    /// Which line, from 1.
    pub line: usize,
}

/// A record as a line, with its line end.
///
/// # Errors
/// The record cannot be written as JSON.
pub fn write(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(record)?;
    let sum = sum(&line);
    // The sum comes in before the brace that ends the record.
    line.pop();
    line.extend_from_slice(MARK);
    line.extend_from_slice(format!("{sum:016x}").as_bytes());
    line.extend_from_slice(END);
    line.push(b'\n');
    Ok(line)
}

/// The records of a journal, and how many bytes of whole lines they take. What follows those bytes was being written when the host
/// went down, and nobody was told of it.
///
/// # Errors
/// A line is damaged: nothing in the journal can be relied on.
pub fn read(bytes: &[u8]) -> Result<(Vec<Record>, usize), Damaged> {
    let mut records = Vec::new();
    let mut whole = 0;
    let mut torn = None;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = Damaged { line: index + 1 };
        match (line.strip_suffix(b"\n").and_then(record), torn) {
            (Some(record), None) => {
                records.push(record);
                whole += line.len();
            }
            // After what looked torn there is a good line: that was no crash.
            (Some(_), Some(earlier)) => return Err(earlier),
            // A write that a power cut interrupted leaves out its end, or leaves zeros where a block was to be.
            (None, _) if !line.ends_with(b"\n") || line.contains(&0) => torn = torn.or(Some(damaged)),
            (None, _) => return Err(damaged),
        }
    }
    Ok((records, whole))
}

fn record(line: &[u8]) -> Option<Record> {
    let body = line.strip_suffix(END)?;
    let (body, digits) = body.split_at_checked(body.len().checked_sub(DIGITS)?)?;
    let body = body.strip_suffix(MARK)?;
    let written = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    let seen = step(sum(body), b'}');
    (seen == written).then(|| serde_json::from_slice(line).ok())?
}

/// FNV-1a. Each byte is a bijection of what came before, so that one changed byte always shows.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| step(sum, *byte))
}

fn step(sum: u64, byte: u8) -> u64 {
    (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Attempt;
    use crate::step::StepId;

    fn records() -> Vec<Record> {
        let attempt = Attempt { step: StepId("p/migrate/app/h/postupgrade".to_owned()), attempt: 1 };
        vec![
            Record::Token { token: 1 },
            Record::Kept { lines: vec!["{\"plan\":\"é\"}".to_owned()] },
            Record::Revoked { steps: vec![attempt] },
        ]
    }

    fn journal() -> Vec<u8> {
        records().iter().flat_map(|record| write(record).unwrap()).collect()
    }

    #[test]
    fn a_torn_tail_is_left_out_at_every_byte() {
        let whole = journal();
        for cut in 0..=whole.len() {
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            let length = whole[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            assert_eq!(read(&whole[..cut]), Ok((records()[..lines].to_vec(), length)), "cut at {cut}");
            // A block that was never written, in a file that has its length already.
            let mut zeros = whole[..cut].to_vec();
            zeros.extend([0, 0, b'\n']);
            assert_eq!(read(&zeros).unwrap().1, length, "zeros at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_never_changes_a_record() {
        let whole = journal();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                match read(&flipped) {
                    Err(_) => {}
                    // A digit of a sum in capitals is the same digit.
                    Ok((seen, _)) if seen == records() => {}
                    // The last line end alone cannot be told from a write that was cut off there.
                    Ok((seen, _)) => assert!(at == whole.len() - 1 && seen == records()[..2], "bit {bit} of byte {at}: {seen:?}"),
                }
            }
        }
    }

    #[test]
    fn damage_in_the_middle_is_no_torn_tail() {
        let mut bytes = journal();
        let middle = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 3;
        bytes[middle] = 0;
        assert_eq!(read(&bytes), Err(Damaged { line: 2 }));
    }
}
