// consul is HashiCorp's Consul itself: the real command with its real sub-commands, built from the published modules
// because `go install` refuses a module that has replace directives.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	mcli "github.com/mitchellh/cli"

	"github.com/hashicorp/consul/command"
	"github.com/hashicorp/consul/command/cli"
	_ "github.com/hashicorp/consul/service_os"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	// The command's own log goes through its UI, as in Consul's main.
	log.SetOutput(io.Discard)
	ui := &cli.BasicUI{BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	consul := &mcli.CLI{
		Name:     "consul",
		Args:     args,
		Commands: command.RegisteredCommands(ui),
		HelpFunc: mcli.BasicHelpFunc("consul"),
	}
	code, err := consul.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
