package embedded

import (
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// core writes zap's entries to hclog. etcd says at info and at warning what is of interest to its developers, so these
// are debug here.
type core struct {
	log    hclog.Logger
	fields []zapcore.Field
}

func newCore(log hclog.Logger) zapcore.Core { return &core{log: log} }

func level(l zapcore.Level) hclog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return hclog.Error
	case l >= zapcore.InfoLevel:
		return hclog.Debug
	}
	return hclog.Trace
}

// harmless is what etcd calls an error at the first start of every new member, before it has a term.
const harmless = "failed to update storage version"

func (c *core) Enabled(l zapcore.Level) bool { return level(l) >= c.log.GetLevel() }

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.log, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	var args []any
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			args = append(args, f.Key, v)
		}
	}
	at := level(e.Level)
	if e.Message == harmless {
		at = hclog.Debug
	}
	c.log.Log(at, e.Message, args...)
	return nil
}

func (c *core) Sync() error { return nil }

// ZapLogger writes to hclog what etcd's client or server says.
func ZapLogger(log hclog.Logger) *zap.Logger { return zap.New(newCore(log.Named("etcd"))) }
