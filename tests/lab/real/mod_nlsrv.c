/*
 * The redirection module of the lab: answers /r/test with the build that was compiled into it, so that a web server that still holds the
 * library of the version before is seen. While the web server lives it holds a lock on RUNNING, by which other hosts of the lab see
 * that it does, and it tells the lab's witness when it starts and stops.
 *
 * BUILD (a number), WITNESS and RUNNING (paths) come from whoever compiles it.
 */
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The process that started; children of it run the same clean-ups at their end. */
static pid_t owner;
static int held = -1;

/* Tells the witness something and waits for its answer. */
static int tell(const char *what)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl(WITNESS, WITNESS, what, APR_STRINGIFY(BUILD), (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static apr_status_t stops(void *unused)
{
    if (getpid() == owner) {
        close(held);
        held = -1;
        tell("web-stopped");
    }
    return APR_SUCCESS;
}

static int starts(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *server)
{
    /* The configuration is read twice. The first time somebody still waits for the exit code. */
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        int answer = tell("web-starts");
        if (answer != 0)
            ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "webmdl: the witness answers %d", answer);
        return answer == 0 ? OK : HTTP_INTERNAL_SERVER_ERROR;
    }
    owner = getpid();
    held = open(RUNNING, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (held < 0 || flock(held, LOCK_EX) != 0) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, errno, server, "webmdl: cannot lock " RUNNING);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    apr_pool_cleanup_register(pconf, NULL, stops, apr_pool_cleanup_null);
    tell("web-started");
    return OK;
}

static int answers(request_rec *request)
{
    char date[32];
    time_t now = time(NULL);
    struct tm parts;
    if (request->handler == NULL || strcmp(request->handler, "webmdl") != 0)
        return DECLINED;
    if (strcmp(request->uri, "/r/test") != 0)
        return HTTP_NOT_FOUND;
    strftime(date, sizeof date, "%Y/%m/%d %H:%M:%S", localtime_r(&now, &parts));
    ap_set_content_type(request, "text/xml");
    ap_rprintf(request, "<redir status='OK' date='%s' build='%s' host='' localHost='%s'/>\n", date, APR_STRINGIFY(BUILD),
               request->server->server_hostname);
    return OK;
}

static void hooks(apr_pool_t *pool)
{
    ap_hook_post_config(starts, NULL, NULL, APR_HOOK_LAST);
    ap_hook_handler(answers, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA requesthandler24_module = {STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, hooks};
