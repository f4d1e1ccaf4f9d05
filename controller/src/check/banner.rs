//! What `nlserver pdump` prints.

/// The version of a running or installed server, out of its banner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// The version as it stands there: `6.1`, `7.0 18.10`.
    pub version: String,
    /// The build number.
    pub build: u32,
}

impl Banner {
    /// Finds the banner in the output of `nlserver pdump`. Two forms are documented (domain: prerequisite 1):
    /// `HH:MM:SS > Application server for Adobe Campaign Classic (7.X YY.R build XXX@SHA1) of DD/MM/YYYY` and, older,
    /// `Application Server for Adobe Campaign Version 6.1 (build 8700) of ...`.
    pub fn parse(text: &str) -> Option<Self> {
        text.lines().find_map(Self::parse_line)
    }

    fn parse_line(line: &str) -> Option<Self> {
        let start = line.to_ascii_lowercase().find("application server for")?;
        let (before, rest) = line.get(start..)?.split_once('(')?;
        let (inside, _) = rest.split_once(')')?;
        let (version, build) = inside.split_once("build")?;
        let build: String = build.trim_start().chars().take_while(char::is_ascii_digit).collect();
        let version = match version.trim() {
            "" => before.trim().rsplit(' ').next()?,
            version => version,
        };
        if !version.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        Some(Self { version: version.to_owned(), build: build.parse().ok()? })
    }
}

/// The modules that run, out of lines as `mta@demo (7831) - 15.6 MB`.
pub fn modules(text: &str) -> Vec<&str> {
    text.lines().filter_map(module).collect()
}

fn module(line: &str) -> Option<&str> {
    let (name, rest) = line.trim().split_once(' ')?;
    let (module, instance) = name.split_once('@')?;
    let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (word(module) && word(instance) && rest.trim_start().starts_with('(')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn banner(version: &str, build: u32) -> Option<Banner> {
        Some(Banner { version: version.to_owned(), build })
    }

    #[test]
    fn both_documented_forms_are_read() {
        let new =
            "17:05:44 >   Application server for Adobe Campaign Classic (7.0 18.10 build 8983@ae6bb1d) of 11/12/2018\nNo tasks\n";
        assert_eq!(Banner::parse(new), banner("7.0 18.10", 8983));
        let plain = "10:00:01 > Application server for Adobe Campaign Classic (7.4.1 build 9383@0123abcd) of 01/02/2025";
        assert_eq!(Banner::parse(plain), banner("7.4.1", 9383));
        assert_eq!(
            Banner::parse("Application Server for Adobe Campaign Version 6.1 (build 8700) of 01/02/2016"),
            banner("6.1", 8700)
        );
        assert_eq!(
            Banner::parse("warning: x\nApplication Server for Neolane Version 5.11 (build 7712) of 2012"),
            banner("5.11", 7712)
        );
    }

    #[test]
    fn other_output_is_no_banner() {
        for text in
            ["", "No tasks", "nlserver: error while loading shared libraries: libnl.so", "Application server for X (build )"]
        {
            assert_eq!(Banner::parse(text), None, "{text}");
        }
    }

    #[test]
    fn running_modules_are_read() {
        let text = "banner (x)\nmta@demo (7831) - 15.6 MB\n  wfserver@demo (7832) - 25.1 MB\nfoo bar@x (1)\nNo tasks";
        assert_eq!(modules(text), ["mta@demo", "wfserver@demo"]);
    }

    proptest! {
        #[test]
        fn whatever_a_host_prints_is_survived(text in "\\PC*", inside in "[ 0-9a-z(@).]*") {
            let _ = (Banner::parse(&text), modules(&text));
            let _ = Banner::parse(&format!("Application server for {inside}"));
        }
    }
}
