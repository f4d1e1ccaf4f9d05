//! Databases that dumps are restored into. What is in them is removed, so none of them is a database that is in use, and each is for one
//! instance alone: backups of several are restored at the same time.

use super::{Site, value};
use crate::model::{Backup, Engine, Instance, Scratch};
use crate::problem::{Kind, Report, Span, quote};
use crate::raw;
use crate::read::Spanned;

/// A scratch database; user and password are those of the instance's database, where none are given.
pub(super) fn scratch(site: &Site<'_>, block: &raw::Scratch, database: &raw::Database, report: &mut Report) -> Option<Scratch> {
    if let Some(server) = &block.server {
        value::address(&server.value, &server.span, report);
    }
    let name = block.name.as_ref()?;
    // PostgreSQL's programs take a name with such characters for a whole connection string, which can lead anywhere.
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '$');
    if !name.value.chars().all(plain) {
        report
            .error(Kind::BadName, &name.span, format!("{} cannot be the name of a scratch database", quote(&name.value)))
            .label("letters, digits, `_`, `-`, `.` and `$` are expected here");
    }
    if let Some(user) = &block.user {
        value::of_database(user, "an account of a database", report);
    }
    let engine = database.engine.as_ref().filter(|engine| engine.value != Engine::Postgresql);
    if let Some(engine) = engine.filter(|_| !site.overrides("backup.database-restore")) {
        report
            .error(Kind::BackupEngine, &name.span, "only backups of PostgreSQL databases can be restored into a scratch database")
            .label("remove `scratch`")
            .also(&engine.span, "the engine");
    }
    Some(Scratch {
        server: block.server.as_ref()?.value.0.clone(),
        name: name.value.0.clone(),
        user: block.user.as_ref().or(database.user.as_ref())?.value.0.clone(),
        password: block.password.as_ref().map(|secret| secret.value.0.clone()),
    })
}

/// An instance, for messages, and a database.
struct Database {
    whose: String,
    server: String,
    name: String,
}

impl Database {
    fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The databases of the whole fleet.
#[derive(Default)]
pub(super) struct Databases {
    used: Vec<Database>,
    scratch: Vec<(Database, Span)>,
}

impl Databases {
    /// Adds those of a platform.
    pub(super) fn add(&mut self, site: &Site<'_>, instances: &[Instance]) {
        for instance in instances {
            let Some(database) = &instance.database else { continue };
            let of = |server: &str, name: &str| Database {
                whose: format!("{} ({})", quote(&instance.name), site.name),
                server: server.to_owned(),
                name: name.to_owned(),
            };
            self.used.push(of(&database.server, &database.name));
            if let (Backup::On { scratch: Some(scratch), .. }, Some(span)) = (&database.backup, place(site, &instance.name)) {
                self.scratch.push((of(&scratch.server, &scratch.name), span));
            }
        }
    }

    /// Reports scratch databases that are used for something else.
    pub(super) fn check(&self, report: &mut Report) {
        for (index, (own, span)) in self.scratch.iter().enumerate() {
            if let Some(used) = self.used.iter().find(|used| used.is_called(&own.name)) {
                report
                    .error(
                        Kind::ScratchInUse,
                        span,
                        format!("the scratch database {} has the name of one in use", quote(&own.name)),
                    )
                    .label(format!("the database of {}, on {}, has this name", used.whose, quote(&used.server)))
                    .help("what is in a scratch database is removed, and a server can have several names: choose another name");
            }
            let same = |other: &&(Database, Span)| other.0.is_called(&own.name) && other.0.server.eq_ignore_ascii_case(&own.server);
            if let Some((other, first)) = self.scratch[..index].iter().find(same) {
                report
                    .error(Kind::ScratchInUse, span, format!("{} and {} have one scratch database", other.whose, own.whose))
                    .label("each is restored into its own, at the same time")
                    .also(first, format!("that of {}", other.whose))
                    .help("give each instance its own: `database: { backup: { ..., scratch: { ... } } }` on the instance");
            }
        }
    }
}

/// Where the name of an instance's scratch database stands: on the instance, or on its platform.
fn place(site: &Site<'_>, instance: &str) -> Option<Span> {
    let own = site.raw.instances.iter().flat_map(|list| &list.value).map(|entry| &entry.value.0);
    let own =
        own.filter(|raw| raw.name.as_ref().is_some_and(|name| *name.value == *instance)).find_map(|raw| raw.database.as_ref());
    let backup = |block: &Spanned<raw::Database>| block.value.backup.clone();
    let nearest = own.and_then(backup).or_else(|| site.raw.database.as_ref().and_then(backup))?;
    Some(nearest.value.scratch?.value.name?.span)
}
