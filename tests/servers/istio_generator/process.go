package main

import (
	"fmt"
	"os"

	"istio.io/istio/pkg/test"
)

// process is what the generator takes for a Go test: a failure ends the program.
type process struct{}

var _ test.Failer = (*process)(nil)

func (p *process) check(err error) {
	if err != nil {
		p.Fatal(err)
	}
}

func (*process) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

func (p *process) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

func (p *process) Fail() { p.Fatal("failed") }

func (p *process) FailNow() { p.Fatal("failed") }

func (p *process) Skip(args ...any) { p.Fatal(args...) }

func (*process) Log(args ...any) { fmt.Println(args...) }

func (*process) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (*process) TempDir() string { return os.TempDir() }

func (*process) Helper() {}

// Cleanup does nothing: what would be cleaned up ends with the process.
func (*process) Cleanup(func()) {}
