// ratelimit is envoyproxy/ratelimit itself, the reference server of Envoy's rate limit service, built from the published
// modules. It is told what to do by environment variables, see its README.
package main

import (
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	server := runner.NewRunner(settings.NewSettings())
	server.Run()
}
