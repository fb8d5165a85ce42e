package controller

import (
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/grpclog"
)

// AdaptGRPC sends the messages of the gRPC library, which has one logger for the whole process, to log. A program calls
// it once, before anything else.
func AdaptGRPC(log hclog.Logger) {
	grpclog.SetLoggerV2(grpcLogger{log.Named("grpc")})
}

// grpcLogger writes everything one level lower: what happens to a single connection is no concern of an operator.
type grpcLogger struct{ log hclog.Logger }

func (g grpcLogger) Info(args ...any)                 { g.log.Trace(line(args)) }
func (g grpcLogger) Infoln(args ...any)               { g.log.Trace(line(args)) }
func (g grpcLogger) Infof(format string, args ...any) { g.log.Trace(fmt.Sprintf(format, args...)) }

func (g grpcLogger) Warning(args ...any)                 { g.log.Debug(line(args)) }
func (g grpcLogger) Warningln(args ...any)               { g.log.Debug(line(args)) }
func (g grpcLogger) Warningf(format string, args ...any) { g.log.Debug(fmt.Sprintf(format, args...)) }

func (g grpcLogger) Error(args ...any)                 { g.log.Warn(line(args)) }
func (g grpcLogger) Errorln(args ...any)               { g.log.Warn(line(args)) }
func (g grpcLogger) Errorf(format string, args ...any) { g.log.Warn(fmt.Sprintf(format, args...)) }

// Fatal of the library's contract ends the process; the library uses it nowhere in a server.
func (g grpcLogger) Fatal(args ...any)                 { panic(line(args)) }
func (g grpcLogger) Fatalln(args ...any)               { panic(line(args)) }
func (g grpcLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (g grpcLogger) V(l int) bool { return l <= 0 }

func line(args []any) string { return strings.TrimSuffix(fmt.Sprintln(args...), "\n") }
