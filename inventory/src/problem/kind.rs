//! The kinds of problems.

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident => $word:literal,)*) => {
        /// What kind of problem it is. The words are stable, so that scripts can tell problems apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// The file cannot be read.
    Unreadable => "unreadable",
    /// The file is not UTF-8.
    Encoding => "encoding",
    /// The file is larger than an inventory can be.
    TooLarge => "too-large",
    /// More problems than can be listed.
    TooManyProblems => "too-many-problems",
    /// Not YAML.
    Syntax => "syntax",
    /// Nothing in it.
    Empty => "empty",
    /// More than one YAML document.
    SeveralDocuments => "several-documents",
    /// Nested too deeply.
    TooDeep => "too-deep",
    /// Aliases make it too large.
    TooManyAliases => "too-many-aliases",
    /// A YAML tag such as `!vault`.
    Tag => "tag",
    /// A key that is a list or a map.
    ComplexKey => "complex-key",
    /// `<<` with something that is not a map.
    MergeKey => "merge-key",
    /// A key given twice in one map.
    DuplicateKey => "duplicate-key",
    /// A value of the wrong type.
    WrongType => "wrong-type",
    /// A key that does not exist.
    UnknownKey => "unknown-key",
    /// A key that must be there.
    MissingKey => "missing-key",
    /// A key that a later version will have.
    ReservedKey => "reserved-key",
    /// A word that is not one of those allowed.
    UnknownWord => "unknown-word",
    /// A number outside its limits.
    OutOfRange => "out-of-range",
    /// A text that must not be empty.
    EmptyText => "empty-text",
    /// A list that must not be empty.
    EmptyList => "empty-list",
    /// A format version that this build does not read.
    FormatVersion => "format-version",
    /// A range that cannot be understood or is empty.
    RangeSyntax => "range-syntax",
    /// A range that counts down.
    RangeReversed => "range-reversed",
    /// A range inside a range.
    RangeNested => "range-nested",
    /// More hosts than a fleet can have.
    TooManyHosts => "too-many-hosts",
    /// Name and address do not stand for the same number of hosts.
    RangeMismatch => "range-mismatch",
    /// A name with characters that a name cannot have.
    BadName => "bad-name",
    /// A platform's name given twice.
    DuplicatePlatform => "duplicate-platform",
    /// A host's name given twice in a platform.
    DuplicateHost => "duplicate-host",
    /// A host in two platforms.
    HostInTwoPlatforms => "host-in-two-platforms",
    /// An instance's name given twice in a platform.
    DuplicateInstance => "duplicate-instance",
    /// A name that Campaign keeps for itself.
    ReservedName => "reserved-name",
    /// A role that does not exist.
    UnknownRole => "unknown-role",
    /// A role that the platform's topology does not have.
    RoleNotInTopology => "role-not-in-topology",
    /// Something listed twice.
    ListedTwice => "listed-twice",
    /// A topology without a role that it must have.
    MissingRole => "missing-role",
    /// More or fewer hosts than the topology has.
    HostCount => "host-count",
    /// A platform without mail or tracking servers (warning).
    NoDeliveryServers => "no-delivery-servers",
    /// An execution or mid-sourcing server that runs no instance (warning).
    NoInstanceOnHost => "no-instance-on-host",
    /// An instance that no host can run.
    NoApp => "no-app",
    /// An instance that several hosts could run.
    SeveralApps => "several-apps",
    /// An application server that is not a host of the platform.
    UnknownApp => "unknown-app",
    /// An application server without the role for it.
    WrongApp => "wrong-app",
    /// A secret written out.
    PlainSecret => "plain-secret",
    /// A reference to a secret that cannot be understood.
    BadSecretReference => "bad-secret-reference",
    /// A reference where there is no secret.
    StrayReference => "stray-reference",
    /// Not a SHA-256 digest.
    BadDigest => "bad-digest",
    /// Not an operating system that Caravan knows.
    BadOs => "bad-os",
    /// A package without its place, or with two.
    PackagePlace => "package-place",
    /// A URL that cannot be used.
    BadUrl => "bad-url",
    /// No package for a host.
    NoPackage => "no-package",
    /// A version that Caravan does not migrate from.
    SourceVersion => "source-version",
    /// A version that Caravan does not migrate to.
    TargetVersion => "target-version",
    /// An order that breaks the vendor's rules.
    OrderRule => "order-rule",
    /// An order that leaves a role out.
    OrderIncomplete => "order-incomplete",
    /// An order on a single machine.
    OrderWithoutStages => "order-without-stages",
    /// An engine that cannot come from this version.
    EngineNotSupported => "engine-not-supported",
    /// A platform without a database (warning).
    NoDatabase => "no-database",
    /// Two instances in one database (warning).
    SharedDatabase => "shared-database",
    /// A backup host that is not a host of the platform.
    UnknownBackupHost => "unknown-backup-host",
    /// A backup that is neither `on` and `dir` nor `by`.
    BackupForm => "backup-form",
    /// A backup that Caravan cannot make.
    BackupEngine => "backup-engine",
    /// A scratch database that is used for something else.
    ScratchInUse => "scratch-in-use",
    /// Backups that shall be kept off a host, and it is not said where or for whom.
    KeepForm => "keep-form",
    /// A host that keeps backups and is no host of the fleet, or cannot do it.
    KeepHost => "keep-host",
    /// Not a public key of age.
    BadPublicKey => "bad-public-key",
    /// Not a number of bytes, or of bytes a second.
    BadBytes => "bad-bytes",
    /// Not a host name or address.
    BadAddress => "bad-address",
    /// Two hosts with one address and port (warning).
    SameAddress => "same-address",
    /// A path that cannot be used.
    BadPath => "bad-path",
    /// A placeholder that does not exist.
    BadPlaceholder => "bad-placeholder",
    /// Two directories that must be apart.
    PathsOverlap => "paths-overlap",
    /// Not an account name.
    BadAccount => "bad-account",
    /// Not a public host key.
    BadHostKey => "bad-host-key",
    /// A setting without effect (warning).
    WithoutEffect => "without-effect",
    /// Several time zones with an engine that cannot keep them.
    TimestamptzEngine => "timestamptz-engine",
    /// A setting that does not go with the host's OS.
    NotOnThisOs => "not-on-this-os",
    /// Not a time zone.
    BadTimezone => "bad-timezone",
    /// v5 needs a time zone for postupgrade.
    MissingTimezone => "missing-timezone",
    /// Not a step name.
    BadStepName => "bad-step-name",
    /// A step that the runbook does not have.
    UnknownStep => "unknown-step",
    /// Something wrong in a runbook of the site's own.
    Runbook => "runbook",
    /// An override that changes nothing.
    OverrideEmpty => "override-empty",
    /// An override whose parts exclude each other.
    OverrideConflict => "override-conflict",
    /// A command as text without `shell: true`, or a list with it.
    CommandForm => "command-form",
    /// Not a length of time.
    BadDuration => "bad-duration",
}
