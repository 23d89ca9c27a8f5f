-- What a server of commit b3511a5 (revision 0003) left when it was killed: a voice of a prompt, a setting that was
-- changed, a job that was completed, one that was being made and one that waited. As `iterdump` of sqlite3 writes it.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE audio_prompts (
	prompt_id VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	duration DOUBLE NOT NULL, 
	file_size INTEGER NOT NULL, 
	transcript TEXT, 
	transcript_source VARCHAR(16), 
	sidecar_digest VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (prompt_id)
);
INSERT INTO "audio_prompts" VALUES('anna','558d752572ebab78ddea5c69fb0f2891b39bd7d5ea9be8b0e6141db03467cfa8',1.0,88244,'This is Anna.','manual','5f5aef0a02383b66c02d97c05100df5e744bc0f32c8de44858f879b73fcd69df','2026-11-24 18:29:45.888225','2026-11-24 18:29:46.000123');
CREATE TABLE config (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "config" VALUES('output_retention_hours','0');
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	job_id VARCHAR(36) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	request TEXT NOT NULL, 
	voice TEXT NOT NULL, 
	text_preview VARCHAR(100) NOT NULL, 
	attempts INTEGER NOT NULL, 
	progress DOUBLE NOT NULL, 
	error TEXT, 
	file VARCHAR(64), 
	audio_s DOUBLE, 
	generation_s DOUBLE, 
	tokens INTEGER, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	PRIMARY KEY (number), 
	UNIQUE (job_id)
);
INSERT INTO "jobs" VALUES(1,'ead12556-1d08-4926-aaef-51fc976a57f0','completed','{"text":"It is done.","voice_id":"luna","response_format":"mp3","speed":1.0,"role":null,"temperature":null,"cfg_scale":null,"top_p":null,"max_tokens":null,"use_torch_compile":null,"seed":3276090107}','{"voice_id":"luna","style":"expressive","primary_speaker":"S2","audio_prompt":null,"audio_prompt_transcript":null}','It is done.',1,1.0,NULL,'ead12556-1d08-4926-aaef-51fc976a57f0.mp3',6.60498866213151902826e-01,8.63402020004286896437e-02,57,'2026-11-24 18:29:46.061064','2026-11-24 18:29:46.086692','2026-11-24 18:29:46.251062');
INSERT INTO "jobs" VALUES(2,'3b441f3c-7910-4d15-b886-c44d370fd2f8','processing','{"text":"It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. It was being made. ","voice_id":"aria","response_format":"wav","speed":1.0,"role":null,"temperature":null,"cfg_scale":null,"top_p":null,"max_tokens":null,"use_torch_compile":null,"seed":2065789540}','{"voice_id":"aria","style":"neutral","primary_speaker":"S1","audio_prompt":null,"audio_prompt_transcript":null}','It was being made. It was being made. It was being made. It was being made. It was being made. It wa',1,0.0,NULL,NULL,NULL,NULL,NULL,'2026-11-24 18:29:46.457618','2026-11-24 18:29:46.475018',NULL);
INSERT INTO "jobs" VALUES(3,'b85f1856-07fe-4556-8475-b53386583c0e','pending','{"text":"It waits.","voice_id":"anna","response_format":"wav","speed":1.5,"role":null,"temperature":null,"cfg_scale":null,"top_p":null,"max_tokens":null,"use_torch_compile":null,"seed":7}','{"voice_id":"anna","style":"warm","primary_speaker":"S2","audio_prompt":"anna","audio_prompt_transcript":null}','It waits.',0,0.0,NULL,NULL,NULL,NULL,NULL,'2026-11-24 18:29:46.480506',NULL,NULL);
CREATE TABLE totals (
	id INTEGER NOT NULL, 
	successful INTEGER DEFAULT 0 NOT NULL, 
	failed INTEGER DEFAULT 0 NOT NULL, 
	generation_s DOUBLE DEFAULT 0 NOT NULL, 
	tokens BIGINT DEFAULT 0 NOT NULL, 
	audio_s DOUBLE DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "totals" VALUES(1,1,0,8.63402020004286896437e-02,57,6.60498866213151902826e-01);
CREATE TABLE voice_mappings (
	voice_id VARCHAR(64) NOT NULL, 
	style VARCHAR(64) NOT NULL, 
	primary_speaker VARCHAR(2) NOT NULL, 
	audio_prompt VARCHAR(64), 
	audio_prompt_transcript TEXT, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (voice_id)
);
INSERT INTO "voice_mappings" VALUES('aria','neutral','S1',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('atlas','calm','S1',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('luna','expressive','S2',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('kai','friendly','S1',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('zara','deep','S2',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('nova','bright','S1',NULL,NULL,'2026-11-24 18:29:45.612991','2026-11-24 18:29:45.612991');
INSERT INTO "voice_mappings" VALUES('anna','warm','S2','anna',NULL,'2026-11-24 18:29:46.033259','2026-11-24 18:29:46.033267');
CREATE INDEX ix_jobs_status_number ON jobs (status, number);
CREATE INDEX ix_jobs_finished_at ON jobs (finished_at);
COMMIT;
