//! Method names.

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

methods! {
    /// Opens a session (up to 2025-11-25).
    INITIALIZE = "initialize";
    /// The client is ready (up to 2025-11-25).
    INITIALIZED = "notifications/initialized";
    /// What a server can do (2026-07-28).
    DISCOVER = "server/discover";
    /// Answered on each hop.
    PING = "ping";

    /// Lists tools, in pages.
    TOOLS_LIST = "tools/list";
    /// Calls a tool. Never retried.
    TOOLS_CALL = "tools/call";
    /// Lists resources, in pages.
    RESOURCES_LIST = "resources/list";
    /// Lists resource templates, in pages.
    RESOURCE_TEMPLATES_LIST = "resources/templates/list";
    /// Reads a resource.
    RESOURCES_READ = "resources/read";
    /// Watches a resource (up to 2025-11-25).
    RESOURCES_SUBSCRIBE = "resources/subscribe";
    /// Stops watching a resource (up to 2025-11-25).
    RESOURCES_UNSUBSCRIBE = "resources/unsubscribe";
    /// Opens a stream of change notices (2026-07-28).
    SUBSCRIPTIONS_LISTEN = "subscriptions/listen";
    /// Lists prompts, in pages.
    PROMPTS_LIST = "prompts/list";
    /// Reads a prompt.
    PROMPTS_GET = "prompts/get";
    /// Completes an argument.
    COMPLETE = "completion/complete";
    /// Sets a session's log level (up to 2025-11-25).
    SET_LEVEL = "logging/setLevel";
    /// A task's state.
    TASKS_GET = "tasks/get";
    /// A task's result; may block.
    TASKS_RESULT = "tasks/result";
    /// Lists tasks, in pages.
    TASKS_LIST = "tasks/list";
    /// Ends a task.
    TASKS_CANCEL = "tasks/cancel";
    /// Brings a task what it asked for.
    TASKS_UPDATE = "tasks/update";

    /// A server asks the client's model.
    SAMPLING = "sampling/createMessage";
    /// A server asks the person.
    ELICITATION = "elicitation/create";
    /// A server asks for the client's roots.
    ROOTS_LIST = "roots/list";

    /// A request is given up.
    CANCELLED = "notifications/cancelled";
    /// How far a request is.
    PROGRESS = "notifications/progress";
    /// A log message.
    LOG_MESSAGE = "notifications/message";
    /// The client's roots changed.
    ROOTS_CHANGED = "notifications/roots/list_changed";
    /// The tools changed.
    TOOLS_CHANGED = "notifications/tools/list_changed";
    /// The prompts changed.
    PROMPTS_CHANGED = "notifications/prompts/list_changed";
    /// The resources changed.
    RESOURCES_CHANGED = "notifications/resources/list_changed";
    /// A watched resource changed.
    RESOURCE_UPDATED = "notifications/resources/updated";
    /// A subscription stream is open (2026-07-28).
    SUBSCRIPTIONS_ACKNOWLEDGED = "notifications/subscriptions/acknowledged";
    /// A person finished what a URL asked for (2025-11-25).
    ELICITATION_COMPLETE = "notifications/elicitation/complete";
    /// A task's state, which the client listens for (extension `io.modelcontextprotocol/tasks`).
    TASK_NOTICE = "notifications/tasks";
    /// A task's state changed (2025-11-25).
    TASK_STATUS = "notifications/tasks/status";
}

/// Whether a message of this method is a notification.
#[must_use]
pub fn is_notification(method: &str) -> bool {
    method.starts_with("notifications/")
}
