package embedded

import (
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap/zapcore"
)

// core writes zap's entries to hclog. etcd says at info what is of interest to its developers, so every level is one
// lower here, except errors.
type core struct {
	log    hclog.Logger
	fields []zapcore.Field
}

func newCore(log hclog.Logger) zapcore.Core { return &core{log: log} }

func level(l zapcore.Level) hclog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return hclog.Error
	case l == zapcore.WarnLevel:
		return hclog.Info
	case l == zapcore.InfoLevel:
		return hclog.Debug
	}
	return hclog.Trace
}

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
	c.log.Log(level(e.Level), e.Message, args...)
	return nil
}

func (c *core) Sync() error { return nil }
