//! What a postupgrade said (domain: procedure step 7): its errors and warnings, the documents in conflict, its last line.
//!
//! The step itself fails by its exit code and by the lines that the runbook names; what is read here is for people: what was warned of,
//! and what there is to do afterwards.

use super::finding::{clean, instance_scope};
use crate::plan::PlannedStep;
use proto::event::{Finding, Status, When};
use proto::step::LOG_MARK;
use std::collections::BTreeSet;
use std::io::BufRead;

/// Steps whose output is read, with the check that their finding belongs to.
const STEPS: &[(&str, &str)] = &[("postupgrade", "postupgrade"), ("postupgrade.check", "postupgrade-check")];
/// The check for documents that a person has to merge.
const CONFLICTS: &str = "postupgrade-conflicts";
/// The checks, and when they have to be well. What the postupgrade itself says is for the record: how the step ended counts.
pub(super) const CHECKS: &[(&str, Option<When>)] =
    &[("postupgrade-check", Some(When::BeforePostupgrade)), ("postupgrade", None), (CONFLICTS, None)];
/// A warning that the vendor says can be ignored.
const IGNORED: &str = "JST-310040";
/// Codes that are errors whatever their line looks like (domain: procedure step 7).
const ERRORS: &[&str] = &["PU-0005", "PU-0007", "PU-0008"];
/// Warnings, errors and documents that a finding quotes; the rest is counted.
const QUOTED: usize = 20;
/// Bytes of a line that are looked at.
const LINE: u64 = 4096;

/// What was read so far.
#[derive(Debug, Default)]
struct Said {
    errors: Lines,
    warnings: Lines,
    ignored: usize,
    /// Type and id of documents in conflict.
    conflicts: BTreeSet<(String, String)>,
    /// The last line: warnings and errors as the postupgrade counts them.
    summary: Option<(u64, u64)>,
}

/// The first lines of a kind, and how many there were: a log may be as large as a disk.
#[derive(Debug, Default)]
struct Lines {
    first: Vec<String>,
    count: usize,
}

impl Lines {
    fn push(&mut self, line: String) {
        self.count += 1;
        if self.first.len() < QUOTED {
            self.first.push(line);
        }
    }
}

/// The findings in the output of a step; none of a step that is no postupgrade.
///
/// `output` is read to its end. What cannot be read ends it: the step's own end is in the record all the same.
pub fn findings(platform: &str, step: &PlannedStep, output: impl BufRead) -> Vec<Finding> {
    let Some((_, check)) = STEPS.iter().find(|(name, _)| *name == step.name) else { return Vec::new() };
    let Some(instance) = step.instance.as_deref() else { return Vec::new() };
    let said = Said::read(output);
    let finding = |check: &str, (status, message, evidence, remedy): Told| Finding {
        id: format!("{check}@{}", instance_scope(platform, instance)),
        check: check.to_owned(),
        when: CHECKS.iter().find(|(name, _)| *name == check).and_then(|(_, when)| *when),
        platform: platform.to_owned(),
        host: Some(step.host.clone()),
        instance: Some(instance.to_owned()),
        status,
        message,
        evidence,
        remedy: remedy.to_owned(),
        overridden: None,
    };
    let mut findings = vec![finding(check, said.outcome())];
    findings.extend(said.in_conflict().map(|told| finding(CONFLICTS, told)));
    findings
}

/// Status, message, evidence, remedy.
type Told = (Status, String, String, &'static str);

impl Said {
    fn read(mut output: impl BufRead) -> Self {
        let mut said = Self::default();
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match std::io::Read::take(&mut output, LINE).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return said,
                Ok(_) => said.line(&String::from_utf8_lossy(&bytes)),
            }
        }
    }

    fn line(&mut self, line: &str) {
        if line.starts_with(LOG_MARK) {
            return; // Its log says once more what it says itself.
        }
        let codes: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| is_code(word)).collect();
        if let Some(counts) = summary(line) {
            self.summary = Some(counts);
            return;
        }
        if let Some(document) = conflict(line) {
            self.conflicts.insert(document);
        }
        let is_error = line.contains(">>>") || codes.iter().any(|code| ERRORS.contains(code));
        if !is_error && !line.contains(">>") {
            return;
        }
        if codes.contains(&IGNORED) {
            self.ignored += 1;
            return;
        }
        let text = clean(line.rsplit(">>").next().unwrap_or(line));
        match is_error {
            true => self.errors.push(text),
            false => self.warnings.push(text),
        }
    }

    fn outcome(&self) -> Told {
        let ignored = match self.ignored {
            0 => String::new(),
            n => format!(" ({n} of {IGNORED}, which can be ignored)"),
        };
        let (errors, warnings) = (self.errors.count, self.warnings.count);
        let mut quoted: Vec<String> = self.errors.first.iter().chain(&self.warnings.first).take(QUOTED).cloned().collect();
        if errors + warnings > QUOTED {
            quoted.push(format!("and {} more", errors + warnings - QUOTED));
        }
        if let Some((warnings, errors)) = self.summary {
            quoted.insert(0, format!("{warnings} warning(s) and {errors} error(s) by its last line"));
        }
        let evidence = if quoted.is_empty() { "its output".to_owned() } else { quoted.join(" · ") };
        let counted = self.summary.map_or(0, |(_, errors)| usize::try_from(errors).unwrap_or(usize::MAX));
        let errors = errors.max(counted);
        match self.summary {
            _ if errors > 0 => (
                Status::Failure,
                format!("{} and {}{ignored}", plural(errors, "error"), plural(warnings, "warning")),
                evidence,
                "Mend what the errors name, then start it again: it resumes where it stopped. Nothing was migrated where it stopped by itself.",
            ),
            None => (
                Status::Unknown,
                "its last line did not come".to_owned(),
                evidence,
                "Look at the log of the postupgrade on the host.",
            ),
            Some(_) if warnings > 0 => (
                Status::Warning,
                format!("{}, no error{ignored}", plural(warnings, "warning")),
                evidence,
                "Go through the warnings with those who know the instance.",
            ),
            Some(_) => (Status::Ok, format!("no error, no warning{ignored}"), evidence, ""),
        }
    }

    fn in_conflict(&self) -> Option<Told> {
        let count = self.conflicts.len();
        let mut documents: Vec<String> = self.conflicts.iter().take(QUOTED).map(|(kind, id)| format!("{kind} {id}")).collect();
        if count > QUOTED {
            documents.push(format!("and {} more", count - QUOTED));
        }
        (count > 0).then(|| {
            let message = format!("{} in conflict with the new version", plural(count, "document"));
            let remedy = "Merge them in the client console (Administration > Configuration > Package management > Edit conflicts).";
            (Status::Warning, message, documents.join(", "), remedy)
        })
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `PU-0003`, `JST-310040`: letters, a dash, digits.
fn is_code(word: &str) -> bool {
    word.split_once('-').is_some_and(|(letters, digits)| {
        matches!(letters, "PU" | "JST") && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Warnings and errors out of `demo instance, 3 warning(s) and 0 error(s) during the update.`
fn summary(line: &str) -> Option<(u64, u64)> {
    let (before, rest) = line.split_once(" warning(s) and ")?;
    let (errors, _) = rest.split_once(" error(s) during the update")?;
    let warnings = before.rsplit(' ').next()?;
    Some((warnings.parse().ok()?, errors.trim().parse().ok()?))
}

/// Type and id out of `The document with identifier 'X' and type 'Y' is in conflict with the new version.`
fn conflict(line: &str) -> Option<(String, String)> {
    if !line.contains("conflict") {
        return None;
    }
    let quoted = |word: &str| {
        let (_, rest) = line.split_once(word)?;
        let rest = rest.trim_start().strip_prefix(['\'', '\u{2018}'])?;
        rest.split_once(['\'', '\u{2019}']).map(|(text, _)| clean(text))
    };
    Some((quoted("type")?, quoted("identifier")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome(text: &str) -> (Status, String, String) {
        let (status, message, evidence, _) = Said::read(text.as_bytes()).outcome();
        (status, message, evidence)
    }

    #[test]
    fn warnings_and_errors_are_told_apart() {
        let (status, message, evidence) = outcome(
            "11:57:51 >   Application server for Adobe Campaign Classic (7.4.1 build 9383@x) of 01/02/2025\n\
             11:57:52 >> PU-0003 The form 'nms:x' was changed\n\
             11:57:53 >> JST-310040 obsolete\n\
             11:57:54 > demo instance, 2 warning(s) and 0 error(s) during the update.\n",
        );
        assert_eq!((status, message.as_str()), (Status::Warning, "1 warning, no error (1 of JST-310040, which can be ignored)"));
        assert!(evidence.starts_with("2 warning(s) and 0 error(s) by its last line · PU-0003 The form"), "{evidence}");
        let ignored = ">> JST-310040 x\n> demo instance, 1 warning(s) and 0 error(s) during the update.\n";
        assert_eq!(outcome(ignored).0, Status::Ok);
        let stopped = ">>> Unable to connect\n> demo instance, 0 warning(s) and 1 error(s) during the update.\n";
        assert_eq!((outcome(stopped).0, outcome(stopped).1), (Status::Failure, "1 error and 0 warnings".to_owned()));
        // A code that is an error is one, whatever the line looks like; and the last line's own count is believed, too.
        let coded = "2011-10-04 11:57:51.804Z B67B28C0 1 error log PU-0007 x\n> demo instance, 0 warning(s) and 0 error(s) during the update.\n";
        assert_eq!(outcome(coded).0, Status::Failure);
        assert_eq!(outcome("> demo instance, 0 warning(s) and 3 error(s) during the update.").0, Status::Failure);
        assert_eq!(outcome("11:57:52 > Updating tables\n").0, Status::Unknown);
        assert_eq!(outcome("").0, Status::Unknown);
    }

    #[test]
    fn of_many_lines_the_first_are_kept_and_all_are_counted() {
        let mut text: String = (0..30).map(|n| format!(">> PU-0003 warning {n}\n")).collect();
        text.extend((0..25).map(|n| format!(">>> error {n}\n")));
        let said = Said::read(text.as_bytes());
        assert_eq!((said.errors.first.len(), said.warnings.first.len()), (QUOTED, QUOTED));
        let (_, message, evidence, _) = said.outcome();
        assert_eq!(message, "25 errors and 30 warnings");
        assert!(evidence.starts_with("error 0 · ") && evidence.ends_with("error 19 · and 35 more"), "{evidence}");
    }

    #[test]
    fn documents_in_conflict_are_listed_with_type_and_id() {
        let said = Said::read(
            "11:57:52 >> The document with identifier 'mobileAppDeliv' and type 'nms:includeView' is in conflict with the new version.\n\
             11:57:52 >> The document with identifier ‘stock’ and type ‘nms:webApp’ is in conflict with the new version.\n\
             11:57:52 > No conflict of type was seen\n"
                .as_bytes(),
        );
        let (status, message, evidence, remedy) = said.in_conflict().unwrap();
        assert_eq!((status, message.as_str()), (Status::Warning, "2 documents in conflict with the new version"));
        assert_eq!(evidence, "nms:includeView mobileAppDeliv, nms:webApp stock");
        assert!(!remedy.is_empty());
        assert!(Said::default().in_conflict().is_none());
    }

    proptest! {
        #[test]
        fn any_output_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "(>{0,4} ?|PU-000[0-9]|[0-9]{1,25} warning\\(s\\) and |[0-9]{1,25} error\\(s\\) during the update|conflict|type '|identifier '|\\PC){0,12}") {
            let _ = Said::read(bytes.as_slice()).outcome();
            let said = Said::read(text.as_bytes());
            let _ = (said.outcome(), said.in_conflict());
        }
    }
}
