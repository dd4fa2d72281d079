package sqllease

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checks are what shows that an equivalent does what the setting does.
type checks []func(t *testing.T)

// foreign are the settings of other pools, by heading of docs/concepts.md, with what shows
// that the equivalent which it names does it.
var foreign = map[string]map[string]checks{
	"HikariCP": {
		"maximumPoolSize":           {boundsConnections, adoptsTheLimit},
		"minimumIdle":               {keepsReady},
		"connectionTimeout":         {boundsAcquires},
		"idleTimeout":               {closesTheUnused},
		"maxLifetime":               {endsTheOld, endsBeforeTheServerDoes},
		"keepaliveTime":             {endsBeforeTheNetworkDoes, keepsAlive},
		"leakDetectionThreshold":    {reportsTheUnused},
		"connectionTestQuery":       {findsTheDeadByTheDriver, goesOnAfterARestart},
		"validationTimeout":         {boundsTheCheck},
		"initializationFailTimeout": {opensWithoutAServer, failsAtTheStart},
		"poolName":                  {namesThePool},
		"metricRegistry":            {measures},
		"registerMbeans":            {measures},
		"healthCheckRegistry":       {opensWithoutAServer},
		"connectionInitSql":         {setsUpNewOnes},
		"transactionIsolation":      {givesOptions},
		"readOnly":                  {givesOptions},
		"jdbcUrl":                   {opensByName},
		"driverClassName":           {opensByName},
		"username":                  {opensByName},
		"password":                  {opensByName},
		"dataSource":                {opensByName},
		"dataSourceClassName":       {opensByName},
		"isolateInternalQueries":    {asksOnce},
		"threadFactory":             {runsNoGoroutine},
		"scheduledExecutor":         {runsNoGoroutine},
	},
	"SQLAlchemy's QueuePool": {
		"pool_size":            {keepsIdleOnes},
		"max_overflow":         {keepsIdleOnes, boundsConnections},
		"pool_timeout":         {boundsAcquires},
		"pool_recycle":         {endsTheOld, endsBeforeTheServerDoes},
		"pool_pre_ping":        {goesOnAfterARestart, findsTheDeadByTheDriver},
		"pool_use_lifo":        {usesTheLastFirst, servesInOrder},
		"pool_reset_on_return": {keepsItUntilTheTransactionEnds},
		"pool_logging_name":    {namesThePool},
		"echo_pool":            {logsReports, measures},
		"poolclass=NullPool":   {keepsIdleOnes},
		"creator":              {opensByName, setsUpNewOnes},
		"Engine.dispose()":     {closesAll, closesTheIdle, replacesAll},
	},
	"Django": {
		"CONN_MAX_AGE":                {endsTheOld},
		"CONN_HEALTH_CHECKS":          {goesOnAfterARestart, findsTheDeadByTheDriver},
		`OPTIONS["pool"]["max_size"]`: {boundsConnections},
		`OPTIONS["pool"]["min_size"]`: {keepsReady},
		`OPTIONS["pool"]["timeout"]`:  {boundsAcquires},
		"ATOMIC_REQUESTS":             {keepsItUntilTheTransactionEnds},
	},
	"database/sql": {
		"SetMaxOpenConns":    {adoptsTheLimit, boundsConnections},
		"SetMaxIdleConns":    {keepsIdleOnes, adoptsTheLimit},
		"SetConnMaxIdleTime": {closesTheUnused},
		"SetConnMaxLifetime": {endsTheOldUnderLoad},
		"DB.Stats":           {measures},
	},
	"PgBouncer": { // integration/pgbouncer_test.go has what needs one
		"max_client_conn":          {boundsConnections},
		"query_wait_timeout":       {boundsAcquires},
		"client_idle_timeout":      {endsBeforeTheNetworkDoes},
		"idle_transaction_timeout": {reportsTheTransaction},
	},
	"Redis clients: go-redis": {
		"PoolSize":              {boundsConnections},
		"MaxActiveConns":        {boundsConnections},
		"MinIdleConns":          {keepsReady},
		"MaxIdleConns":          {keepsIdleOnes},
		"PoolTimeout":           {boundsAcquires},
		"ConnMaxIdleTime":       {closesTheUnused, endsBeforeTheNetworkDoes},
		"ConnMaxLifetime":       {endsTheOld},
		"ConnMaxLifetimeJitter": {endsTheOld},
		"PoolFIFO":              {usesTheLastFirst, servesInOrder},
		"DialTimeout":           {boundsTheDial},
		"ReadTimeout":           {boundsTheCheck},
		"WriteTimeout":          {boundsTheCheck},
		"MaxRetries":            {triesThrice},
		"OnConnect":             {setsUpNewOnes},
	},
}

func TestForeignSettingsHaveAnEquivalentThatDoesIt(t *testing.T) {
	for pool, settings := range foreign {
		for setting, all := range settings {
			t.Run(pool+"/"+setting, func(t *testing.T) {
				for _, check := range all {
					inBubble(check)(t)
				}
			})
		}
	}
}

// elsewhere begins the cell of a setting for which there is nothing here to play.
var elsewhere = regexp.MustCompile(`^(not there|not needed|another layer's)`)

func TestEveryForeignSettingThatIsNamedIsPlayed(t *testing.T) {
	for pool, settings := range foreign {
		named := map[string]bool{}
		for _, cells := range settingsOf(t, pool) {
			for _, setting := range quoted.FindAllStringSubmatch(cells[0], -1) {
				named[setting[1]] = true
				if !elsewhere.MatchString(strings.TrimSpace(cells[2])) {
					assert.Contains(t, settings, setting[1], "%s: a row without a check", pool)
				}
			}
		}
		for setting := range settings {
			assert.True(t, named[setting], "%s: %s has a check and no row", pool, setting)
		}
	}
}

// settingsOf are the rows of the first table of three columns below a heading of docs/concepts.md.
func settingsOf(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("docs/concepts.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(text), "\n### "+heading+"\n")
	require.True(t, found, heading)
	section, _, _ := strings.Cut(after, "\n### ")
	for line := range strings.Lines(section) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) == 5 && strings.HasPrefix(line, "| `") {
			rows = append(rows, cells[1:4])
		}
	}
	require.NotEmpty(t, rows, heading)
	return rows
}
