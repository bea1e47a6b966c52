//! The bodies of requests and answers, as JSON. The handlers answer with these types and the command line reads the same
//! ones, so that a field has one name and one meaning on both sides.

mod actions;
mod agents;
mod audit;
mod condensed;
mod coverage;
mod experiments;
mod game_days;
mod halt;
mod login;
mod problem;
mod run_plan;
mod runs;
pub(super) mod safe_integer;
mod session;
mod suggestions;
mod tokens;

pub use actions::{ActionInfo, ChangeActionRequest, CloseActionRequest, NewActionRequest};
pub use agents::{
    AgentInfo, DoctorFinding, DuplicateInfo, FaultInfo, LabelsRequest, OwedInjection,
};
pub use audit::{AuditLogEntry, AuditVerification};
pub use condensed::{CondensedProbeInfo, CondensedRunInfo, SamplePoints};
pub use coverage::{CoverageInfo, TriedFault};
pub use experiments::{
    ApplyResult, ExperimentInfo, InlineRunRequest, PauseInfo, PauseRequest, ResumeScheduleResult,
    StartRunRequest, StartRunResult, UpcomingRuns, VersionInfo,
};
pub use game_days::{
    GameDayDocumentInfo, GameDayInfo, GameDayReason, GameDayStepInfo, PrepareGameDayRequest,
    PrerequisiteInfo, PromptInfo, RevealRequest,
};
pub use halt::{AgentHaltResult, GuardianRevert, HaltRequest, HaltResult, HaltStatus, TeamHalt};
pub use login::{
    CodeLoginRequest, DeviceLoginInfo, DeviceLoginResult, PageLoginInfo, PageLoginRequest,
};
pub use problem::{DocumentProblem, ProblemDetails};
pub use run_plan::RunPlan;
pub use runs::{
    ApprovalInfo, ApprovedRun, RejectRequest, RunInfo, RunJournalEntry, RunNoteInfo, StopRequest,
    StopResult,
};
pub use session::{SessionInfo, SettingsInfo, TlsCertificateInfo};
pub use suggestions::{LeftOutInfo, SuggestionInfo, SuggestionsInfo};
pub use tokens::{JoinTokenInfo, JoinTokenRequest, RevokedTokens, TokenInfo, TokenRequest};
