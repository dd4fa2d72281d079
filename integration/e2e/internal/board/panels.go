package board

// This file is the panels.

const (
	small   = 8 // a third of the width
	quarter = 6
	tall    = 8
	recent  = "5m" // the window of the single figures
)

const (
	waits      = "db_client_connection_wait_time_seconds"
	operations = "db_client_operation_duration_seconds"
	dials      = "db_client_connection_create_time_seconds"
	holds      = "db_client_connection_use_time_seconds"
	pool       = "db_client_connection_pool_name"
)

func rows() []row {
	return []row{
		{"At a glance", glance()},
		{"Pool", poolPanels()},
		{"Waiting for a connection, and querying", acquirePanels()},
		{"Dials and closed connections", sessionPanels()},
		{"Leaks, slow calls, deadlocks and leftovers", leakPanels()},
		{"Time checked out, and rows", holdPanels()},
		{"Operations", operationPanels()},
		{"Lanes and overload", lanePanels()},
	}
}

var (
	waitLinks = []object{tracesOf("Traces that waited 100 ms and longer", "pool.acquire", "100ms")}
	leakLinks = []object{tracesOf("Traces of leaks", "sqllease.leak", "")}
)

func glance() []panel {
	figure := func(title, description, unit, empty, expr string, steps ...step) panel {
		return panel{
			kind: "stat", title: title, description: description, width: 4, height: 4, unit: unit, empty: empty,
			targets: []target{{expr: expr, legend: title}}, steps: steps,
		}
	}
	p99 := figure("p99 of acquires",
		"One caller in a hundred waited longer for a connection, in the last five minutes. Callers who got an error are included.", "s", "none",
		"("+quantile(0.99, waits, "", recent)+") >= 0", step{0.025, "orange"}, step{0.1, "red"})
	p99.links = waitLinks
	return []panel{
		figure("Utilisation", "The fullest pool: connections checked out or being dialed, against the limit. At 100 %, callers wait.",
			"percentunit", "unlimited", "max("+utilisation+")", step{0.8, "orange"}, step{0.95, "red"}),
		figure("Waiters now", "Callers in the queues now.",
			"short", "n/a", "sum("+of("db_client_connection_pending_requests")+")", step{1, "orange"}, step{10, "red"}),
		figure("Timeouts in 5 min", "Callers who got no connection in time, in the last five minutes. Each of them got an error.",
			"short", "n/a", "round(sum(increase("+of("db_client_connection_timeouts_total")+"["+recent+"])))", step{1, "red"}),
		p99,
		figure("Share of acquire now", "The wait for a connection, as a share of the time spent on the database, in the last five minutes.",
			"percentunit", "none", "("+share("", recent)+") >= 0", step{0.1, "orange"}, step{0.5, "red"}),
		figure("Failed dials in 5 min", "Connections that could not be opened, in the last five minutes. The panel of dials shows why.",
			"short", "n/a", "round(\n"+born("sqllease_dial_failures_total", "error_type", "", recent)+
				"\n)\nor 0 * sum("+of("db_client_connection_timeouts_total")+")", step{1, "red"}),
	}
}

func poolPanels() []panel {
	return []panel{
		{
			title: "Connections against the limit", width: 9, height: tall, unit: "short", look: stacked, dashed: "limit",
			description: "What the connections are used for, stacked below the limit of all chosen instances. Busy: in a call. " +
				"Open rows, in a transaction, idle: checked out, but unused at this moment. If busy is at the limit, queries are slow or too many.",
			targets: []target{
				{expr: "sum by (sqllease_lease_use) (" + of("sqllease_lease_count") + ")", legend: "{{sqllease_lease_use}}"},
				{expr: "sum(" + of("db_client_connection_count", `db_client_connection_state="dialing"`) + ")", legend: "being dialed"},
				{expr: "sum(" + of("db_client_connection_count", `db_client_connection_state="idle"`) + ")", legend: "free"},
				{expr: "sum(" + of("db_client_connection_max") + " > 0)", legend: "limit"},
			},
			colours: map[string]string{
				"busy": "blue", "open_rows": "orange", "in_tx": "purple", "idle": "yellow",
				"being dialed": "super-light-blue", "free": "#8e8e8e", "limit": "red",
			},
		},
		{
			title: "Waiters", width: 5, height: tall, unit: "short", links: waitLinks,
			description: "Callers in the queue of each pool.",
			targets:     []target{{expr: "sum by (" + pool + ") (" + of("db_client_connection_pending_requests") + ")", legend: "{{" + pool + "}}"}},
		},
		{
			title: "Longest hold and longest wait", width: 5, height: tall, unit: "s",
			description: "The longest time that a connection has been checked out, and that a caller has waited. If a hold only rises, a connection does not come back.",
			targets: []target{
				{expr: "max by (" + pool + ") (" + of("sqllease_oldest_hold_seconds") + ")", legend: "{{" + pool + "}}: hold"},
				{expr: "max by (" + pool + ") (" + of("sqllease_oldest_wait_seconds") + ")", legend: "{{" + pool + "}}: wait"},
			},
		},
		{
			kind: "bargauge", title: "Utilisation by instance", width: 5, height: tall, unit: "percentunit", empty: "unlimited",
			description: "The fullest pools first: connections checked out or being dialed, against the limit.",
			targets:     []target{{expr: "sort_desc(topk(10, " + utilisation + "))", legend: "{{" + pool + "}} {{instance}}"}},
			steps:       []step{{0.8, "orange"}, {0.95, "red"}},
		},
	}
}

// percentiles is a panel of a histogram's.
func percentiles(title, metric, unit, description string, matchers ...string) panel {
	p := panel{
		title: title, width: small, height: tall, unit: unit, description: description,
		colours: map[string]string{"p50": "blue", "p95": "orange", "p99": "purple"},
	}
	for _, one := range []struct {
		legend string
		q      float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}} {
		p.targets = append(p.targets, target{quantile(one.q, metric, "", interval, matchers...), one.legend, true})
	}
	return p
}

func acquirePanels() []panel {
	acquire := percentiles("Acquire", waits, "s", "How long callers wait for a connection: queue, dial and reset together. "+
		"Callers who got an error are included. If p99 is above some milliseconds, the pool makes requests slow, not the database.")
	acquire.links = waitLinks
	parts := panel{
		title: "Parts of the acquire, p99", width: small, height: tall, unit: "s", links: waitLinks,
		description: "Where callers who waited spent their time. Queue: connections are held for too long, or the limit is too low. " +
			"Dial: the server is slow to connect to. Reset: the network is slow.",
		targets: []target{{quantile(0.99, "sqllease_acquire_part_seconds", "sqllease_acquire_part", interval), "{{sqllease_acquire_part}}", true}},
		colours: map[string]string{"queue": "orange", "dial": "super-light-blue", "reset": "purple"},
	}
	return []panel{
		acquire,
		percentiles("Query", operations, "s", "How long operations take once they have a connection, until their rows are closed. "+
			"Rows that leak are left out. If this rises first, waits for a connection follow.", closedRows),
		{
			title: "Share of acquire", width: small, height: tall, unit: "percentunit",
			description: "The wait for a connection, as a share of the time that callers spend on the database. Near zero is healthy. " +
				"If it is high, shorter holds or a higher limit help more than faster queries.",
			targets: []target{{expr: share(pool, interval), legend: "{{" + pool + "}}"}},
		},
		{
			title: "Acquires", width: small, height: tall, unit: "suffix:/s",
			description: "Callers who got a connection, and callers who got an error in its place, by error.",
			targets: []target{
				{expr: counted(waits, "", interval, `error_type=""`), legend: "served"},
				{expr: counted(waits, "error_type", interval, `error_type!=""`), legend: "failed: {{error_type}}"},
			},
			links: waitLinks,
		},
		parts,
		{
			title: "Acquires ended by a deadline", width: small, height: tall, unit: "suffix:/s",
			description: "Callers who got no connection before their deadline, or Config.AcquireTimeout. Cancelled callers do not count.",
			targets:     []target{{expr: "sum by (" + pool + ") (rate(" + of("db_client_connection_timeouts_total") + "[" + interval + "]))", legend: "{{" + pool + "}}"}},
			links:       waitLinks,
		},
	}
}

func sessionPanels() []panel {
	const closed = "sqllease_session_closed_total"
	return []panel{
		{
			title: "Dials and their failures", width: small, height: tall, unit: "short", look: bars,
			description: "Connections opened, and dials that failed, by cause, within the interval. Refused, timeout, dns, unreachable: look at the network. " +
				"Authentication, tls, unknown_database: look at the settings. Too_many_connections: the server is full.",
			targets: []target{
				{expr: "sum(increase(" + of(dials+"_count") + "[" + interval + "]) or histogram_count(increase(" + of(dials) + "[" + interval + "])))", legend: "succeeded"},
				{expr: born("sqllease_dial_failures_total", "error_type", "error_type", interval), legend: "failed: {{error_type}}"},
			},
		},
		percentiles("Dial", dials, "s", "How long it takes to open a connection. Callers wait for it whenever the pool grows or replaces connections."),
		{
			title: "Connections closed, by reason", width: small, height: tall, unit: "short", look: bars,
			description: "Within the interval. Expired, idle_limit: closed in time, as planned. Cut, reset_failed: ended by the server or the network. " +
				"Cancelled: ended by deadlines of the application. Surplus: if there are many, SetMaxIdleConns is too low.",
			targets: []target{
				{expr: born(closed, "sqllease_close_reason", "sqllease_close_reason", interval, `error_type=""`), legend: "{{sqllease_close_reason}}"},
				{
					expr:   born(closed, "sqllease_close_reason, error_type", "sqllease_close_reason, error_type", interval, `error_type!=""`),
					legend: "{{sqllease_close_reason}}: {{error_type}}",
				},
			},
		},
	}
}

func leakPanels() []panel {
	return []panel{
		{
			title: "Leaks, by class", width: quarter, height: tall, unit: "short", look: bars, links: leakLinks,
			description: "Connections reported as leaked within the interval. The log and the span sqllease.leak have the line that took each.",
			targets:     []target{{expr: grown("sqllease_leaks_total", "sqllease_leak_class", interval), legend: "{{sqllease_leak_class}}"}},
			colours:     map[string]string{"unused": "orange", "proven": "red"},
		},
		{
			title: "Slow calls", width: quarter, height: tall, unit: "short", look: bars,
			description: "Calls that took longer than Config.SlowCallThreshold, within the interval. They are not leaks.",
			targets:     []target{{expr: grown("sqllease_slow_calls_total", pool, interval), legend: "{{" + pool + "}}"}},
		},
		{
			title: "Standstills and nested acquires", width: quarter, height: tall, unit: "short", look: bars,
			description: "Within the interval: deadlocks of the pool; other standstills, in which callers waited and nothing was done with any connection; and places in the code that wait for a connection while they hold one. " +
				"If as many goroutines do this as there are connections, the pool deadlocks.",
			targets: []target{
				{expr: "sum(increase(" + of("sqllease_deadlocks_total") + "[" + interval + "]))", legend: "deadlocks"},
				{expr: "sum(increase(" + of("sqllease_standstills_total") + "[" + interval + "])) - sum(increase(" + of("sqllease_deadlocks_total") + "[" + interval + "]))", legend: "other standstills"},
				{expr: born("sqllease_nested_acquires_total", "", "", interval), legend: "places of nested acquires"},
			},
			colours: map[string]string{"deadlocks": "red", "other standstills": "purple", "places of nested acquires": "orange"},
		},
		{
			title: "Leftovers, by kind", width: quarter, height: tall, unit: "short", look: bars,
			description: "Connections that came back, within the interval, with something that the next caller inherits. " +
				"A transaction or a lock is a fault in the code. A setting may be on purpose. The log has the line that left it.",
			targets: []target{{
				expr:   born("sqllease_session_leftovers_total", "sqllease_leftover_kind", "sqllease_leftover_kind", interval),
				legend: "{{sqllease_leftover_kind}}",
			}},
			colours: map[string]string{
				"transaction": "red", "lock": "orange", "setting": "blue", "database": "purple", "channel": "yellow",
				"temporary_table": "super-light-blue", "prepared_statement": "#8e8e8e",
			},
		},
	}
}

func holdPanels() []panel {
	const rowsOf = "db_client_response_returned_rows"
	return []panel{
		percentiles("Hold", holds, "s", "How long connections are checked out. If that is much longer than the queries, code keeps connections during other work."),
		{
			title: "Checked out but unused, by place", width: 16, height: tall, unit: "short",
			description: "How many connections are checked out but unused, on average, by the line of code that took them: the five places with most. " +
				"A connection counts when it is given back. Move other work, such as a call of another service, out of these places.",
			targets: []target{{
				expr:   "topk(5, sum by (sqllease_place) (rate(" + of("sqllease_unused_time_seconds_total") + "[" + interval + "])))",
				legend: "{{sqllease_place}}",
			}},
		},
		percentiles("Rows of a query", rowsOf, "short", "How many rows a query returns. If p99 is far above p50, a query may lack a limit."),
		{
			title: "Rows returned", width: small, height: tall, unit: "suffix:/s",
			description: "Rows that callers read.",
			targets:     []target{{expr: summed(rowsOf, pool, interval), legend: "{{" + pool + "}}"}},
		},
		{
			title: "Lifetimes", width: small, height: tall, unit: "s", look: steps,
			description: "The idle limit of new connections, and how long a connection may live because of the server's. If the idle limit changes, somebody changed the server's settings, or a shorter limit was learned from connections that were found dead, and is forgotten step by step.",
			targets: []target{
				{expr: "min by (" + pool + ") (" + of("sqllease_idle_limit_seconds") + " > 0)", legend: "{{" + pool + "}}: idle limit"},
				{expr: "min by (" + pool + ") (" + of("sqllease_lifetime_seconds") + " > 0)", legend: "{{" + pool + "}}: lifetime"},
			},
		},
	}
}

func operationPanels() []panel {
	const name = "db_operation_name"
	return []panel{
		{
			title: "Operations by name", width: small, height: tall, unit: "suffix:/s",
			description: "What the service asks of the database. As many prepares as queries: statements are prepared for a single use.",
			targets:     []target{{expr: counted(operations, name, interval), legend: "{{" + name + "}}"}},
		},
		{
			title: "Operations by name, p99", width: small, height: tall, unit: "s",
			description: "Which kind of operation is slow. If begin and commit rise with the rest, it is the server or the network, not a query.",
			targets:     []target{{quantile(0.99, operations, name, interval, closedRows), "{{" + name + "}}", true}},
		},
		{
			title: "Errors by type", width: small, height: tall, unit: "suffix:/s",
			description: "Operations that failed, by the server's code or the error's name. Unclosed: rows that leaked.",
			targets:     []target{{expr: counted(operations, "error_type", interval, `error_type!=""`), legend: "{{error_type}}"}},
		},
	}
}

func lanePanels() []panel {
	const lane, inLane, legend = "sqllease_lane", `sqllease_lane!=""`, "{{" + pool + "}} {{sqllease_lane}}"
	return []panel{
		{
			title: "Waiters, by lane", width: small, height: tall, unit: "short", links: waitLinks,
			description: "Callers in the queue of each lane of Config.Lanes. Those of a lane that has all that its Max allows wait for each other, and for nobody else.",
			targets:     []target{{expr: "sum by (" + pool + ", " + lane + ") (" + of("db_client_connection_pending_requests", inLane) + ")", legend: legend}},
		},
		{
			title: "Acquire by lane, p99", width: small, height: tall, unit: "s", links: waitLinks,
			description: "How long callers of each lane wait for a connection. Callers who got an error are included.",
			targets:     []target{{quantile(0.99, waits, pool+", "+lane, interval, inLane), legend, true}},
		},
		{
			title: "Refused callers, by lane", width: small, height: tall, unit: "suffix:/s",
			description: "Callers who were refused, by Config.MaxWaiting or Config.QueueTarget, of pools with lanes and without. Each of them got an error. The others are served in time.",
			targets:     []target{{expr: counted(waits, pool+", "+lane, interval, `error_type="overloaded"`), legend: legend}},
		},
	}
}
